"""Templates that come with requests: each in a confined process of its own.

Not in the process of the model's own template: that is every caller's, and a template that someone
sends must neither see their messages nor make them wait.
"""

from __future__ import annotations

import asyncio

from .base import TemplatedChat
from .errors import InvalidParametersError
from .template_renderer import TemplateRenderer

# Each process may take 256 MiB.
_MOST_AT_ONCE = 4


class GivenTemplates:
    """Renders conversations by the templates that came with them. Belongs to one event loop.

    Args:
        bos_text: How the token is written that texts begin with; empty where there is none.
        eos_text: Likewise, for the token that ends texts.
    """

    def __init__(self, bos_text: str, eos_text: str) -> None:
        self._bos_text = bos_text
        self._eos_text = eos_text
        self._turns = asyncio.Semaphore(_MOST_AT_ONCE)
        self._renderers: set[TemplateRenderer] = set()

    async def render(self, chat: TemplatedChat) -> str:
        """The text that the template makes of the messages.

        Raises:
            InvalidParametersError: There are no messages; or the template can't be read, refuses
                them, takes too much, or makes nothing of them.
            EngineError: The process can't be started, or fails through no fault of the template.
            NoModelLoadedError: The model was unloaded.
        """
        if not chat.messages:
            raise InvalidParametersError("messages", "messages must hold at least one message.")
        renderer = TemplateRenderer(chat.template, self._bos_text, self._eos_text, given=True)
        self._renderers.add(renderer)
        try:
            async with self._turns:
                text = await renderer.render(chat.messages)
        finally:
            self._renderers.discard(renderer)
            await renderer.close()
        if not text:
            raise InvalidParametersError("template", "template makes no text of the messages.")
        return text

    async def close(self) -> None:
        """End what renders."""
        for renderer in tuple(self._renderers):
            await renderer.close()
