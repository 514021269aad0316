from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from evalpool.client.conversation import BYTES_A_TOKEN, Conversation, Exchange, fitting
from evalpool.inference.v1 import inference_pb2


def turns(chat: inference_pb2.Chat) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in chat.messages]


def test_a_question_comes_after_all_that_was_said() -> None:
    talk = Conversation("Be brief.", [Exchange("Who?", "Ann."), Exchange("Where?", "Here.")])
    assert turns(talk.asking("Why?")) == [
        ("system", "Be brief."),
        ("user", "Who?"),
        ("assistant", "Ann."),
        ("user", "Where?"),
        ("assistant", "Here."),
        ("user", "Why?"),
    ]


def test_what_an_answer_is_based_on_stands_before_its_question() -> None:
    talk = Conversation("")
    assert turns(talk.asking("Why?", "A cat.")) == [("user", "Context: A cat.\n\nQuestion: Why?")]
    assert turns(talk.asking("Why?")) == [("user", "Why?")]


def test_the_oldest_is_forgotten_first_and_only_as_much_as_must_be() -> None:
    said = [Exchange(f"question {number}", "x" * 300) for number in range(10)]
    talk = Conversation("system", list(said))
    assert talk.shorten("last", "", 10_000) == 0
    forgotten = talk.shorten("last", "", 600)
    assert talk.exchanges == said[forgotten:]
    assert 0 < forgotten < 10
    one_more = Conversation("system", said[forgotten - 1 :])
    assert one_more.shorten("last", "", 600) == 1


def test_a_question_without_room_is_asked_alone() -> None:
    talk = Conversation("system", [Exchange("a", "b"), Exchange("c", "d")])
    assert talk.shorten("x" * 1000, "", 10) == 2
    assert (talk.exchanges, talk.forget_oldest()) == ([], False)


@given(st.lists(st.text()), st.integers(0, 20))
def test_texts_are_kept_from_the_first_on_as_far_as_they_fit(texts: list[str], tokens: int) -> None:
    kept = fitting(texts, tokens)
    assert sum(len(text.encode()) for text in kept) <= tokens * BYTES_A_TOKEN
    assert kept[:-1] == texts[: max(len(kept) - 1, 0)]
    if kept:
        assert texts[len(kept) - 1].startswith(kept[-1])
    if len(kept) < len(texts):
        whole = "".join(texts[: len(kept) + 1]).encode()
        assert len(whole) >= tokens * BYTES_A_TOKEN
