"""Regular expressions in another syntax: the same is found first."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalpool.tasks import TaskError
from evalpool.tasks.expressions import without_look_around


@pytest.mark.parametrize(
    ("pattern", "written"),
    [
        (r"#### (\-?[0-9\.\,]+)", r"#### (\-?[0-9\.\,]+)"),
        (r"[(?=]\((?:a|b)", r"[(?=]\((?:a|b)"),
        (r"(?<=the answer is )(.*)(?=.)", r"the answer is (.*)(?:.)"),
        (r"^(.*?)(?=\n|$)", r"^(.*?)(?:\n|$)"),
        (r"((?<=Answer: )(.*)(?=.)|(?<=so )(.*)(?=.))", r"Answer: (.*).|so (.*)."),
    ],
)
def test_look_around_at_the_ends_is_consumed(pattern: str, written: str) -> None:
    assert without_look_around(pattern, 0, "f") == written


PATTERNS = (
    r"(?<=ab)(.*)(?=.)",
    r"^(.*?)(?=\n|$)",
    r"(?<=b)([ab]|c)",
    r"((?<=ab)(.*)(?=.)|(?<=b)(.*)(?=.)|(?<=ca)(.*)(?=.))",
)


@pytest.mark.parametrize("pattern", PATTERNS)
@given(text=st.text("abc\n", max_size=12))
def test_the_same_is_found_first(pattern: str, text: str) -> None:
    assert first(without_look_around(pattern, 0, "f"), text) == first(pattern, text)


def first(pattern: str, text: str) -> str | None:
    """What lm-evaluation-harness takes of the first find: the first group that is not empty."""
    found = re.findall(pattern, text)
    if not found:
        return None
    groups = found[0] if isinstance(found[0], tuple) else (found[0],)
    return next((group for group in groups if group), None) if len(groups) > 1 else groups[0]


@pytest.mark.parametrize(
    ("pattern", "select"),
    [
        (r"(?<=is )(.*)(?=.)", -1),
        (r"(?<=is ).*(?=.)", 0),
        (r"(?<!is )(a)", 0),
        (r"(a)(?!b)", 0),
        (r"(a)\1", 0),
        (r"(?P<x>a)(?P=x)", 0),
        (r"(?>a)(b)", 0),
        (r"(a)(?=b)c", 0),
        (r"(?<=a)(b)|(?<=c)(d)", 0),
        (r"(?<=b)(a)|(b)", 0),
        (r"((?<=ab)(.*)(?=.)|(?<=ab, c)(.*)(?=.))", 0),
    ],
)
def test_other_look_around_is_refused(pattern: str, select: int) -> None:
    with pytest.raises(TaskError, match=r"f: .* has look-around, back-references or atomic groups"):
        without_look_around(pattern, select, "f")


def test_what_is_no_expression_is_refused() -> None:
    with pytest.raises(TaskError, match=r"f: '\(a' is no regular expression: missing \)"):
        without_look_around("(a", 0, "f")
