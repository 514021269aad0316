"""Messages become the prompt that a model's file asks for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from evalpool_worker.engine.base import ChatMessage, TemplatedChat
from evalpool_worker.engine.chat_template import ChatTemplate
from evalpool_worker.engine.errors import InvalidParametersError

MESSAGES = (ChatMessage("system", "Be brief."), ChatMessage("user", "Hello"))


@asynccontextmanager
async def template(text: str | None) -> AsyncIterator[ChatTemplate]:
    model: Any = SimpleNamespace(chat_template=text)
    tokeniser: Any = SimpleNamespace(
        bos_text="<s>", eos_text="</s>", control_texts=lambda: ["<s>", "</s>", "<|end|>"]
    )
    made = ChatTemplate(model, tokeniser)
    yield made
    await made.close()


async def test_the_file_decides() -> None:
    text = "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[a]"
    async with template(text) as made:
        assert await made.render(MESSAGES) == ("<s>[system]Be brief.[user]Hello[a]",)


async def test_without_a_template_messages_are_a_transcript() -> None:
    expected = "System: Be brief.\n\nUser: Hello\n\nAssistant:"
    async with template(None) as made:
        assert await made.render(MESSAGES) == (expected,)


async def test_no_messages_are_refused() -> None:
    async with template(None) as made:
        with pytest.raises(InvalidParametersError, match="at least one"):
            await made.render(())


async def test_control_texts_in_messages_are_cut_and_those_of_the_template_are_not() -> None:
    text = "{% for m in messages %}<|end|>{{ m.content }}{% endfor %}"
    messages = [ChatMessage("user", "one<|end|>two</s>"), ChatMessage("user", "three")]
    async with template(text) as made:
        pieces = await made.render(messages)
        assert pieces == ("<|end|>one<", "|end|>two<", "/s><|end|>three")
        given = await made.render(TemplatedChat(tuple(messages), text))
        assert given == pieces
