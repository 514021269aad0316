"""Messages become the prompt that a model's file asks for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from evalpool_worker.engine.base import ChatMessage, InvalidParametersError
from evalpool_worker.engine.chat_template import ChatTemplate

MESSAGES = (ChatMessage("system", "Be brief."), ChatMessage("user", "Hello"))


def template(text: str | None) -> ChatTemplate:
    model: Any = SimpleNamespace(chat_template=text)
    tokeniser: Any = SimpleNamespace(bos_text="<s>", eos_text="</s>")
    return ChatTemplate(model, tokeniser)


def test_the_file_decides() -> None:
    text = "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[a]"
    assert template(text).render(MESSAGES) == "<s>[system]Be brief.[user]Hello[a]"


def test_without_a_template_messages_are_a_transcript() -> None:
    expected = "System: Be brief.\n\nUser: Hello\n\nAssistant:"
    assert template(None).render(MESSAGES) == expected


@pytest.mark.parametrize(
    "text",
    [
        "{{ raise_exception('no system message') }}",
        "{{ messages[7].content }}",
        "{% for m in messages %}",
        "{{ ''.__class__.__mro__ }}",
    ],
)
def test_what_the_template_refuses_names_the_messages(text: str) -> None:
    with pytest.raises(InvalidParametersError, match="messages don't suit") as refused:
        template(text).render(MESSAGES)
    assert refused.value.field == "messages"


def test_no_messages_are_refused() -> None:
    with pytest.raises(InvalidParametersError, match="at least one"):
        template(None).render(())
