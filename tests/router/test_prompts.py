from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalpool_router.prompts import (
    JUDGE_GRAMMAR,
    JUDGE_PROMPT,
    JUDGE_PROMPT_DIGEST,
    judge_question,
    parse_grade,
)

PLACES = ("{context}", "{question}", "{expected_response}", "{response}")


@given(st.integers(0, 10))
def test_every_grade_that_the_grammar_allows_is_read(grade: int) -> None:
    assert parse_grade(str(grade)) == grade


@pytest.mark.parametrize("text", ["", " ", "11", "-1", "ten", "1.5", "100", "²", "٣", "7 of 10"])
def test_nothing_else_is_a_grade(text: str) -> None:
    assert parse_grade(text) is None


def test_the_judge_is_asked_what_the_published_prompt_says() -> None:
    texts = dict(zip(PLACES, ("ctx", "Q", "expected", "given"), strict=True))
    chat = judge_question("Q", "expected", "ctx", "given")
    published = JUDGE_PROMPT
    for place, text in texts.items():
        published = published.replace(place, text)
    assert (
        published
        == "".join(f"[{message.role}]\n{message.content}\n\n" for message in chat.messages)
        + f"[grammar]\n{JUDGE_GRAMMAR}\n"
    )
    assert hashlib.sha256(JUDGE_PROMPT.encode()).hexdigest() == JUDGE_PROMPT_DIGEST
    assert [message.role for message in chat.messages] == ["system", "user"]


def test_without_a_context_the_judge_is_told_of_none() -> None:
    asked = judge_question("Q", "expected", "", "given").messages[1].content
    assert asked.startswith("Question: Q\n\nExpected answer: expected\n\n")


@given(st.lists(st.sampled_from((*PLACES, "{0}", "{{", "}", "[user]\n", "\\1")), min_size=4))
def test_what_a_text_has_in_braces_is_no_place_for_another(parts: list[str]) -> None:
    text = "".join(parts)
    expected, response = "what is right", "what is graded"
    for asked in (
        judge_question(text, expected, "", response),
        judge_question("Q", expected, text, response),
        judge_question("Q", expected, "ctx", text),
    ):
        turn = asked.messages[1].content
        assert text in turn
        assert turn.count(expected) == 1
        assert turn.count(response) == (text not in turn.partition("Answer to grade: ")[2])


def test_an_empty_response_is_graded_as_one() -> None:
    asked = judge_question("Q", "expected", "", "").messages[1].content
    assert "Answer to grade: \n\nGrade" in asked
