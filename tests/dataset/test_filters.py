"""From replies to what is compared: as lm-evaluation-harness does it, in bounded time."""

from __future__ import annotations

import pytest

from evalpool_dataset.filters import (
    ExactMatch,
    MultiChoiceRegexFilter,
    Pipeline,
    RegexFilter,
    UnusablePattern,
    check_pattern,
)

STRICT = Pipeline("strict-match", (RegexFilter(r"#### (\-?[0-9\.\,]+)"),))
FLEXIBLE = Pipeline("flexible-extract", (RegexFilter(r"(-?[$0-9.,]{2,})|(-?[0-9]+)", -1),))
LETTER = MultiChoiceRegexFilter(r"answer is (\([A-C]\))")
CITIES = ("Rome", "Rome of the East", "Oslo")


@pytest.mark.parametrize(
    ("reply", "strict", "flexible"),
    [
        ("She has 3 + 4 = 7.\n#### 7", "7", "7"),
        ("#### 1,234 and #### 5", "1,234", "5"),
        ("It costs $12.50.", "[invalid]", "$12.50."),
        ("no number", "[invalid]", "[invalid]"),
        ("", "[invalid]", "[invalid]"),
    ],
)
def test_a_regex_takes_the_selected_find_or_the_fallback(
    reply: str, strict: str, flexible: str
) -> None:
    assert STRICT.apply(reply, ()) == strict
    assert FLEXIBLE.apply(reply, ()) == flexible


def test_a_selection_beyond_what_is_found_gives_the_fallback() -> None:
    assert RegexFilter("[a-z]", 3, "none").apply("a b c", ()) == "none"
    assert RegexFilter("[a-z]", -4, "none").apply("a b c", ()) == "none"
    assert RegexFilter("[a-z]", -3, "none").apply("a b c", ()) == "a"


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("The answer is (B).", "(B)"),
        ("I would say Oslo", "(C)"),
        # The longest of the choices that stand there, though another one begins it.
        ("Rome of the East, surely", "(B)"),
        ("Answer: A", "(A)"),
        ("oslo", "[invalid]"),
        ("", "[invalid]"),
    ],
)
def test_a_choice_is_found_by_expression_by_text_or_by_letter(reply: str, letter: str) -> None:
    assert LETTER.apply(reply, CITIES) == letter


def test_what_is_to_be_ignored_counts_for_nothing_where_choices_are_looked_for() -> None:
    lenient = MultiChoiceRegexFilter(
        r"answer is (\([A-C]\))",
        ignore_case=True,
        ignore_punctuation=True,
        regexes_to_ignore=(r"\bthe\s",),
    )
    assert lenient.apply("ROME of East!", CITIES) == "(B)"


@pytest.mark.parametrize(
    ("rules", "text", "expected", "is_match"),
    [
        (ExactMatch(), "7", "7", True),
        (ExactMatch(), "7 ", "7", False),
        (ExactMatch(), "Paris", "paris", False),
        (ExactMatch(ignore_case=True), "Paris", "paris", True),
        (ExactMatch(ignore_punctuation=True), "it's!", "its", True),
        (ExactMatch(ignore_numbers=True), "a1", "a2", True),
        (ExactMatch(regexes_to_ignore=(",", r"\$")), "$1,234", "1234", True),
        # Expressions go first, as written: lower case comes after them.
        (ExactMatch(ignore_case=True, regexes_to_ignore=("THE ",)), "THE Sun", "sun", True),
    ],
)
def test_texts_match_but_for_what_counts_for_nothing(
    rules: ExactMatch, text: str, expected: str, is_match: bool
) -> None:
    assert rules.is_match(text, ["something else", expected]) is is_match


@pytest.mark.parametrize("pattern", ["(?=a)b", r"(a)\1", "(", "", "x" * 1001, "(x{1000}){1000}"])
def test_an_expression_that_has_no_bound_is_refused(pattern: str) -> None:
    with pytest.raises(UnusablePattern):
        check_pattern(pattern)


def test_no_expression_and_no_reply_take_more_than_their_length() -> None:
    # `re` would not come back from this.
    assert RegexFilter("(a*)*b").apply("a" * 100_000, ()) == "[invalid]"


def test_steps_follow_one_another() -> None:
    twice = Pipeline("both", (RegexFilter(r"\[(.*)\]"), RegexFilter("[0-9]+")))
    assert twice.apply("3 [of 5]", ()) == "5"
    assert Pipeline("none").apply(" as it is\n", ()) == " as it is\n"
