"""Messages to a prompt, by the template in the model's file."""

from __future__ import annotations

from collections.abc import Sequence

from .base import ChatMessage
from .errors import InvalidParametersError
from .model import LoadedModel
from .template_renderer import TemplateRenderer
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
        self._renderer = TemplateRenderer(
            model.chat_template or _TRANSCRIPT, tokeniser.bos_text, tokeniser.eos_text
        )

    async def render(self, messages: Sequence[ChatMessage]) -> str:
        """The prompt that asks for the assistant's next message.

        Raises:
            InvalidParametersError: There are no messages, or the template refuses them.
            EngineError: They can't be rendered, through no fault of theirs or the template's.
            NoModelLoadedError: The model was unloaded.
        """
        if not messages:
            raise InvalidParametersError("messages", "messages must hold at least one message.")
        return await self._renderer.render(messages)

    async def close(self) -> None:
        """End what renders."""
        await self._renderer.close()
