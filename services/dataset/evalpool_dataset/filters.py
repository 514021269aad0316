r"""From a model's reply to the text that is compared, and the comparing. Pure.

Agrees with `RegexFilter` and `MultiChoiceRegexFilter` in `lm_eval/filters/extraction.py` and with
`exact_match_hf_evaluate` in `lm_eval/api/metrics.py`, release 0.4.13, with two differences:

- Expressions are a dataset owner's, and replies are a stranger's model's, so expressions are RE2's,
  which takes time in proportion to the reply whatever either of them is. RE2 has no look-around and
  no back-references, and its `\d`, `\s`, `\w` and `\b` know ASCII alone.
- A `group_select` beyond what was found gives the fallback, where lm-evaluation-harness breaks off.
"""

from __future__ import annotations

import re
import string
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Protocol

import re2

from evalpool.values import InvalidValue
from evalpool_dataset.digest import JsonValue

FALLBACK = "[invalid]"
MOST_PATTERN_CHARACTERS = 1000
_MOST_PROGRAM_BYTES = 1 << 20


class UnusablePattern(InvalidValue):
    """An expression that RE2 does not take."""


class _Expression(Protocol):
    """What is used of `re2._Regexp`."""

    def findall(self, text: str) -> list[str | tuple[str, ...]]: ...

    def sub(self, replacement: str, text: str) -> str: ...


def check_pattern(pattern: str) -> str:
    """An expression as it stands.

    Raises:
        UnusablePattern: It is empty or too long, or RE2 does not take it.
    """
    if not 1 <= len(pattern) <= MOST_PATTERN_CHARACTERS:
        raise UnusablePattern(
            f"it has {len(pattern)} characters; give 1 to {MOST_PATTERN_CHARACTERS}"
        )
    try:
        _compiled(pattern)
    except re2.error as error:
        told = error.args[0]
        why = told.decode(errors="replace") if isinstance(told, bytes) else told
        raise UnusablePattern(
            f"RE2 does not take it ({why}); write it without look-around, back-references and "
            "repetitions of more than 1,000"
        ) from error
    return pattern


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> _Expression:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MOST_PROGRAM_BYTES
    compiled: _Expression = re2.compile(pattern, options)
    return compiled


@dataclass(frozen=True, slots=True)
class RegexFilter:
    """Takes what a regular expression finds.

    Attributes:
        pattern: In RE2's syntax. Of its groups the first that is not empty is what is found.
        group_select: Which of what is found: from 0, or from the last, -1.
        fallback: What stands where nothing is found.
    """

    pattern: str
    group_select: int = 0
    fallback: str = FALLBACK

    def apply(self, text: str, choices: Sequence[str]) -> str:
        """What is found."""
        found = _selected(_compiled(self.pattern).findall(text), self.group_select)
        # An expression may well find nothing between two letters, which counts as found.
        return self.fallback if found is None else found

    def spec(self) -> Mapping[str, JsonValue]:
        """For the digest."""
        return {
            "fallback": self.fallback,
            "group_select": self.group_select,
            "pattern": self.pattern,
            "step": "regex/1",
        }


@dataclass(frozen=True, slots=True)
class MultiChoiceRegexFilter:
    """Takes the choice that a reply means, as its letter in brackets: "(A)".

    It is looked for by the expression, then by the choices' texts, then as a letter after a colon.

    Attributes:
        pattern: In RE2's syntax.
        group_select: Which of what is found: from 0, or from the last, -1.
        fallback: What stands where nothing is found.
        ignore_case: Case counts for nothing where choices' texts are looked for.
        ignore_punctuation: Nor does punctuation: Unicode's.
        regexes_to_ignore: Nor what these find.
    """

    pattern: str
    group_select: int = 0
    fallback: str = FALLBACK
    ignore_case: bool = False
    ignore_punctuation: bool = False
    regexes_to_ignore: tuple[str, ...] = ()

    def apply(self, text: str, choices: Sequence[str]) -> str:
        """The choice's letter in brackets, or what the expression found."""
        found = _selected(_compiled(self.pattern).findall(text), self.group_select)
        return found or self._by_text(text, choices) or self._by_letter(text, choices)

    def _by_text(self, text: str, choices: Sequence[str]) -> str:
        letters = {
            self._bare(choice.strip()): f"({chr(ord('A') + place)})"
            for place, choice in enumerate(choices)
        }
        # The longest first: a choice may begin with another one.
        texts = [re.escape(self._bare(choice.strip())) for choice in choices]
        alternatives = "|".join(sorted(texts, key=len, reverse=True))
        found = _selected(re.findall(alternatives, self._bare(text)), self.group_select)
        return letters.get(found, found) if found else ""

    def _by_letter(self, text: str, choices: Sequence[str]) -> str:
        letters = "|".join(chr(ord("A") + place) for place in range(len(choices)))
        found = _selected(re.findall(rf":[\s]*({letters})", text), self.group_select)
        return f"({found})" if found else self.fallback

    def _bare(self, text: str) -> str:
        for pattern in self.regexes_to_ignore:
            text = _compiled(pattern).sub("", text)
        if self.ignore_case:
            text = text.lower()
        return text.translate(_unicode_punctuation()) if self.ignore_punctuation else text

    def spec(self) -> Mapping[str, JsonValue]:
        """For the digest."""
        return {
            "fallback": self.fallback,
            "group_select": self.group_select,
            "ignore_case": self.ignore_case,
            "ignore_punctuation": self.ignore_punctuation,
            "pattern": self.pattern,
            "regexes_to_ignore": list(self.regexes_to_ignore),
            "step": "multi_choice_regex/1",
        }


Filter = RegexFilter | MultiChoiceRegexFilter


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A way from a reply to what is compared.

    Attributes:
        name: As in "strict-match".
        steps: In order; none for the reply as it is.
    """

    name: str
    steps: tuple[Filter, ...] = ()

    def apply(self, reply: str, choices: Sequence[str]) -> str:
        """What is compared."""
        for step in self.steps:
            reply = step.apply(reply, choices)
        return reply

    def spec(self) -> Mapping[str, JsonValue]:
        """For the digest."""
        return {"name": self.name, "steps": [step.spec() for step in self.steps]}


AS_IT_IS = (Pipeline("none"),)
"""The reply as it is, under the name that lm-evaluation-harness gives that."""


@dataclass(frozen=True, slots=True)
class ExactMatch:
    """What counts for nothing where texts are compared.

    Attributes:
        ignore_case: Upper and lower case.
        ignore_punctuation: Punctuation: ASCII's.
        ignore_numbers: ASCII's digits.
        regexes_to_ignore: What these expressions find, in RE2's syntax.
    """

    ignore_case: bool = False
    ignore_punctuation: bool = False
    ignore_numbers: bool = False
    regexes_to_ignore: tuple[str, ...] = ()

    def is_match(self, text: str, expected: Iterable[str]) -> bool:
        """Whether a text is one of those that are right."""
        bare = self._bare(text)
        return any(bare == self._bare(each) for each in expected)

    def _bare(self, text: str) -> str:
        for pattern in self.regexes_to_ignore:
            text = _compiled(pattern).sub("", text)
        if self.ignore_case:
            text = text.lower()
        if self.ignore_punctuation:
            text = text.translate(_PUNCTUATION)
        return text.translate(_DIGITS) if self.ignore_numbers else text

    def spec(self) -> Mapping[str, JsonValue]:
        """For the digest."""
        return {
            "ignore_case": self.ignore_case,
            "ignore_numbers": self.ignore_numbers,
            "ignore_punctuation": self.ignore_punctuation,
            "regexes_to_ignore": list(self.regexes_to_ignore),
        }


_PUNCTUATION = str.maketrans("", "", string.punctuation)
_DIGITS = str.maketrans("", "", string.digits)


@cache
def _unicode_punctuation() -> Mapping[int, None]:
    every = range(sys.maxunicode)
    return dict.fromkeys(i for i in every if unicodedata.category(chr(i)).startswith("P"))


def _selected(found: Sequence[str | tuple[str, ...]], select: int) -> str | None:
    """Of what was found the selected one; of its groups the first that is not empty."""
    if not -len(found) <= select < len(found):
        return None
    one = found[select]
    if isinstance(one, tuple):
        return next((group.strip() for group in one if group), None)
    return one.strip()
