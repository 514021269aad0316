"""Messages to a prompt, by the template in the model's file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import jinja2
from llama_cpp.llama_chat_format import Jinja2ChatFormatter

from .base import ChatMessage, InvalidParametersError
from .model import LoadedModel
from .tokenisation import Tokeniser

# For the few files without a template of their own: the form that most models have seen.
_CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


class ChatTemplate:
    """Renders messages the way that the model was trained on."""

    def __init__(self, model: LoadedModel, tokeniser: Tokeniser) -> None:
        # Jinja2ChatFormatter renders in a sandbox: the template comes with the file.
        self._formatter = Jinja2ChatFormatter(
            template=model.chat_template or _CHATML,
            bos_token=tokeniser.bos_text,
            eos_token=tokeniser.eos_text,
        )

    def render(self, messages: Sequence[ChatMessage]) -> str:
        """The prompt that asks for the assistant's next message.

        Raises:
            InvalidParametersError: There are no messages, or the template refuses them.
        """
        if not messages:
            raise InvalidParametersError("messages", "messages must hold at least one message.")
        rows: list[Any] = [
            {"role": message.role, "content": message.content} for message in messages
        ]
        try:
            return cast(str, self._formatter(messages=rows).prompt)
        except (ValueError, TypeError, jinja2.TemplateError) as error:
            raise InvalidParametersError(
                "messages", f"messages don't suit the model's chat template: {error}."
            ) from error
