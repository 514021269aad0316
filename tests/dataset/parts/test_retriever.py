from __future__ import annotations

import re

import pytest

from evalpool_dataset.parts.retriever import LetterRetriever


@pytest.mark.parametrize(
    ("reply", "place"),
    [
        ("A", 1),
        ("B", 2),
        ("C", 3),
        (" C\n", 3),
        ("B.", 2),
        ("B) ", 2),
        ("\tA.\n", 1),
        ("", 0),
        (" ", 0),
        ("N/A", 0),
        ("NA", 0),
        ("a", 0),
        ("D", 0),
        ("Z", 0),
        ("(A)", 0),
        ("A..", 0),
        ("A .", 0),
        ("A B", 0),
        ("A or B", 0),
        ("Answer: A", 0),
        ("AB", 0),
        ("1", 0),
        ("А", 0),  # Cyrillic
        ("Ａ", 0),  # full width
        ("A" * 10_000, 0),
    ],
)
def test_only_a_letter_of_the_choices_is_an_answer(reply: str, place: int) -> None:
    assert LetterRetriever().retrieve(reply, 3) == place


def test_letters_go_as_far_as_the_choices() -> None:
    assert LetterRetriever().retrieve("D", 4) == 4
    assert LetterRetriever().retrieve("Z", 26) == 26
    assert LetterRetriever().retrieve("C", 2) == 0


@pytest.mark.parametrize("choices", [1, 2, 3, 26])
def test_the_grammar_lets_through_just_what_is_an_answer(choices: int) -> None:
    grammar = LetterRetriever().grammar(choices)
    found = re.fullmatch(r"root ::= (\[A-[A-Z]\])", grammar)
    assert found
    letters = [chr(code) for code in range(128) if re.fullmatch(found.group(1), chr(code))]
    assert [LetterRetriever().retrieve(letter, choices) for letter in letters] == list(
        range(1, choices + 1)
    )


@pytest.mark.parametrize("choices", [0, 27])
def test_there_is_no_grammar_without_letters(choices: int) -> None:
    with pytest.raises(ValueError, match="1 to 26"):
        LetterRetriever().grammar(choices)
