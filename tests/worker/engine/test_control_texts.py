"""Control tokens' texts in messages are no more than text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalpool_worker.engine.base import ChatMessage
from evalpool_worker.engine.control_texts import ControlTexts
from evalpool_worker.engine.errors import InvalidParametersError

TEXTS = ("<s>", "<|im_start|>", "<|im_end|>", "[INST]", "<|")
PARTS = st.sampled_from([*TEXTS, "<", "|", "im_end", ">", "s", "[", "INST]", "\ue000", " a"])


def said(*contents: str) -> list[ChatMessage]:
    return [ChatMessage("user", content) for content in contents]


def test_messages_without_them_are_left_as_they_are() -> None:
    messages = said("1 < 2", "[inst] <S>")
    assert ControlTexts(["<s>", "[INST]"]).broken(messages) == (messages, "")


def test_a_vocabulary_without_them_breaks_nothing() -> None:
    assert ControlTexts([]).broken(said("<s>"))[1] == ""


@given(st.lists(st.lists(PARTS, max_size=8).map("".join), max_size=3))
def test_no_piece_has_one_and_together_they_are_the_text(contents: list[str]) -> None:
    messages, mark = ControlTexts(TEXTS).broken(said(*contents))
    for message, content in zip(messages, contents, strict=True):
        pieces = message.content.split(mark) if mark else [message.content]
        assert "".join(pieces) == content
        assert not any(text in piece for text in TEXTS for piece in pieces)


def test_a_character_that_messages_have_does_not_break_them() -> None:
    messages, mark = ControlTexts(TEXTS).broken(said("\ue000<s>\ue001"))
    assert mark == "\ue002"
    assert messages[0].content == "\ue000<\ue002s>\ue001"


def test_messages_with_every_such_character_are_refused() -> None:
    every = "".join(map(chr, range(0xE000, 0xF900)))
    with pytest.raises(InvalidParametersError, match="private use"):
        ControlTexts(TEXTS).broken(said(every, "<s>"))
