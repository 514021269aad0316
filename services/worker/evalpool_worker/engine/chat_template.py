"""Messages to a prompt, by the template in the model's file."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, cast

from llama_cpp.llama_chat_format import Jinja2ChatFormatter

from .base import ChatMessage, InvalidParametersError
from .model import LoadedModel
from .tokenisation import Tokeniser

# For files without a template, mostly models that were trained on plain text only.
_TRANSCRIPT = (
    "{% for message in messages %}"
    "{{ message['role'] | capitalize }}: {{ message['content'] }}\n\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)


class ChatTemplate:
    """Renders messages the way that the model was trained on, or as a plain transcript."""

    def __init__(self, model: LoadedModel, tokeniser: Tokeniser) -> None:
        self._template = model.chat_template or _TRANSCRIPT
        self._tokeniser = tokeniser

    @functools.cached_property
    def _formatter(self) -> Jinja2ChatFormatter:
        # Renders in a sandbox: the template comes with the file.
        return Jinja2ChatFormatter(
            template=self._template,
            bos_token=self._tokeniser.bos_text,
            eos_token=self._tokeniser.eos_text,
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
        except Exception as error:
            # The template is the model's own program: whatever it raises is its refusal.
            raise InvalidParametersError(
                "messages", f"messages don't suit the model's chat template: {error}."
            ) from error
