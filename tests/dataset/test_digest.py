from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalpool_dataset.digest import NotCanonical, canonical_json, question_document, version_digest
from evalpool_dataset.parts import (
    GENERATION,
    MULTIPLE_CHOICE,
    SIQA,
    Evaluator,
    FewShot,
    Parameters,
    ReplyRules,
)
from evalpool_dataset.question import Question
from evalpool_dataset.scoring import Metric

QUESTIONS = [
    Question(1, "Zoë didn't wait.", "Why?", ("late", "tired", "\tshy\u2028"), 2),
    Question(2, "", "Who?", ("me", "you", "them 😀"), 1),
]

texts = st.text(st.characters(exclude_categories=["Cs"]))
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | texts,
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
    max_leaves=20,
)


def test_the_digest_of_a_known_version_stays_what_it_was() -> None:
    # Changing any of these would give every stored version another name.
    assert SIQA.version(SIQA.defaults, QUESTIONS) == (
        "2edada00c598482d253b7e7287cd9ad4866bb06359454d7242ddfc6b6a84dce7"
    )
    assert MULTIPLE_CHOICE.version(MULTIPLE_CHOICE.defaults, QUESTIONS) == (
        "15e458454ecd2318218041e4c0dba5074717fc63784200b6a327d5c4758a90da"
    )


def test_the_digest_is_the_sha_256_of_the_whole_canonical_document() -> None:
    parts = SIQA.parts(SIQA.defaults).specs()
    document = canonical_json(
        {
            "format": "evalpool.dataset/1",
            "kind": "siqa",
            "parts": parts,
            "parameters": SIQA.defaults.spec(),
            "questions": [question_document(question) for question in QUESTIONS],
        }
    )
    assert SIQA.version(SIQA.defaults, QUESTIONS) == hashlib.sha256(document).hexdigest()


@pytest.mark.parametrize(
    "other",
    [
        [replace(QUESTIONS[0], answer=1), QUESTIONS[1]],
        [replace(QUESTIONS[0], context="Zoë did not wait."), QUESTIONS[1]],
        [replace(QUESTIONS[0], choices=("tired", "late", "shy")), QUESTIONS[1]],
        QUESTIONS[:1],
        QUESTIONS[::-1],
        [],
    ],
)
def test_other_questions_are_another_version(other: list[Question]) -> None:
    assert SIQA.version(SIQA.defaults, other) != SIQA.version(SIQA.defaults, QUESTIONS)


def test_what_is_expected_of_a_reply_is_part_of_the_version() -> None:
    one, other = (
        GENERATION.version(GENERATION.defaults, [Question(1, "", "2 + 2?", expected=(text,))])
        for text in ("4", "four")
    )
    assert one != other


@pytest.mark.parametrize(
    "other",
    [
        Parameters(evaluator=Evaluator.LETTER),
        Parameters(metric=Metric.ACC_NORM),
        Parameters(system_prompt="Think first."),
        Parameters(reply=ReplyRules(max_tokens=5)),
        Parameters(few_shot=FewShot(2)),
    ],
)
def test_other_parameters_are_another_version(other: Parameters) -> None:
    assert SIQA.version(other, QUESTIONS) != SIQA.version(SIQA.defaults, QUESTIONS)


def test_another_kind_is_another_version() -> None:
    assert SIQA.version(SIQA.defaults, []) != MULTIPLE_CHOICE.version(SIQA.defaults, [])


def test_canonical_json_follows_rfc_8785() -> None:
    # The RFC's own example of sorting (section 3.2.3), and its escapes (3.2.2.2).
    names = {
        "\u20ac": "Euro Sign",
        "\r": "Carriage Return",
        "\ufb33": "Hebrew Letter Dalet With Dagesh",
        "1": "One",
        "\U0001f600": "Emoji: Grinning Face",
        "\u0080": "Control",
        "\u00f6": "Latin Small Letter O With Diaeresis",
    }
    assert [*json.loads(canonical_json(names)).values()] == [
        "Carriage Return",
        "One",
        "Control",
        "Latin Small Letter O With Diaeresis",
        "Euro Sign",
        "Emoji: Grinning Face",
        "Hebrew Letter Dalet With Dagesh",
    ]
    text = "\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"/"
    assert canonical_json(text) == '"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"'.encode()


@given(values)
def test_canonical_json_reads_back_and_is_stable(value: object) -> None:
    written = canonical_json(value)  # type: ignore[arg-type]
    assert json.loads(written) == value
    assert canonical_json(json.loads(written)) == written


@given(st.dictionaries(texts, st.integers(0, 9), min_size=2))
def test_the_order_of_members_makes_no_difference(members: dict[str, int]) -> None:
    assert canonical_json(members) == canonical_json(dict(reversed(members.items())))


@pytest.mark.parametrize("value", [0.5, 2**53, -(2**53), "\ud800", {1: 2}, b"x", {"a": [1.0]}])
def test_what_has_no_single_form_is_refused(value: object) -> None:
    with pytest.raises(NotCanonical):
        canonical_json(value)  # type: ignore[arg-type]


def test_the_digest_takes_questions_one_by_one() -> None:
    digest = version_digest(kind="k", parts={}, parameters={}, questions=iter(QUESTIONS))
    assert digest == version_digest(kind="k", parts={}, parameters={}, questions=QUESTIONS)
