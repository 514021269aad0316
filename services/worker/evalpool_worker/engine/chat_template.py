"""Messages to a prompt, by the template in the model's file or the one that comes with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .base import ChatMessage, TemplatedChat
from .control_texts import ControlTexts
from .errors import InvalidParametersError
from .given_templates import GivenTemplates
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
        self._given = GivenTemplates(tokeniser.bos_text, tokeniser.eos_text)
        self._control_texts = ControlTexts(tokeniser.control_texts())

    async def render(self, chat: Sequence[ChatMessage] | TemplatedChat) -> tuple[str, ...]:
        """The prompt that asks for the assistant's next message.

        Returns:
            Pieces that follow one another, cut within what a message has of control tokens' texts:
            read one by one, messages hold none.

        Raises:
            InvalidParametersError: There are no messages, or the template refuses them; or one
                that came with them is wrong.
            EngineError: They can't be rendered, through no fault of theirs or the template's.
            NoModelLoadedError: The model was unloaded.
        """
        if isinstance(chat, TemplatedChat):
            messages, mark = self._control_texts.broken(chat.messages)
            text = await self._given.render(replace(chat, messages=tuple(messages)))
        elif chat:
            messages, mark = self._control_texts.broken(chat)
            text = await self._renderer.render(messages)
        else:
            raise InvalidParametersError("messages", "messages must hold at least one message.")
        return tuple(text.split(mark)) if mark else (text,)

    async def close(self) -> None:
        """End what renders."""
        await self._renderer.close()
        await self._given.close()
