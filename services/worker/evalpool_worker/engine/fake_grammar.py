"""Texts that a GBNF grammar allows, for the engine that tests use.

Reads the part of GBNF that this project's grammars are written in: literals, character classes,
rule names, groups, alternatives and the repetitions `? * + {m} {m,} {m,n}`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .errors import InvalidParametersError
from .grammar_limits import check_grammar

_TOKEN = re.compile(
    r"""\s*(?:\#[^\n]*\n?|
    (?P<define>[A-Za-z][A-Za-z0-9-]*)\s*::=|
    (?P<name>[A-Za-z][A-Za-z0-9-]*)|
    "(?P<literal>(?:[^"\\]|\\.)*)"|
    \[(?P<negated>\^?)(?P<characters>(?:[^\]\\]|\\.)*)\]|
    \{(?P<low>\d+)(?P<range>,(?P<high>\d*))?\}|
    (?P<symbol>[()|?*+]))""",
    re.VERBOSE,
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}
_PRINTABLE = [chr(code) for code in range(32, 127)]
_OPEN_END = 3
_DEEPEST = 200

_Part = Callable[[random.Random, int], str]


@dataclass(frozen=True, slots=True)
class FakeGrammar:
    """A parsed grammar."""

    rules: Mapping[str, _Part]

    def text(self, source: random.Random) -> str:
        """One text of the grammar, chosen by `source`."""
        return self.rules["root"](source, 0)


def parse_grammar(grammar: str) -> FakeGrammar:
    """Parse GBNF.

    Raises:
        InvalidParametersError: It is too large, can't be parsed, or has no rule named root.
    """
    check_grammar(grammar)
    return _Parser(grammar).parse()


def _refuse(reason: str) -> InvalidParametersError:
    return InvalidParametersError("grammar", f"grammar is not valid GBNF: {reason}.")


class _Parser:
    def __init__(self, grammar: str) -> None:
        self._tokens = list(self._scan(grammar))
        self._next = 0
        self._rules: dict[str, _Part] = {}

    def parse(self) -> FakeGrammar:
        while self._next < len(self._tokens):
            name = self._tokens[self._next]["define"]
            if name is None:
                raise _refuse("a rule has to begin with its name and ::=")
            self._next += 1
            self._rules[name] = self._alternatives()
        if "root" not in self._rules:
            raise _refuse("it needs a rule named root")
        return FakeGrammar(self._rules)

    @staticmethod
    def _scan(grammar: str) -> list[dict[str, str | None]]:
        tokens, place, text = [], 0, grammar.rstrip()
        while place < len(text):
            match = _TOKEN.match(text, place)
            if match is None:
                raise _refuse(f"{text[place : place + 20]!r} is not understood")
            place = match.end()
            if match.lastgroup is not None:
                tokens.append(match.groupdict())
        return tokens

    def _symbol(self) -> str | None:
        return self._tokens[self._next]["symbol"] if self._next < len(self._tokens) else None

    def _alternatives(self) -> _Part:
        options = [self._sequence()]
        while self._symbol() == "|":
            self._next += 1
            options.append(self._sequence())
        return lambda source, depth: source.choice(options)(source, depth)

    def _sequence(self) -> _Part:
        parts: list[_Part] = []
        while (part := self._item()) is not None:
            parts.append(self._repeated(part))
        return lambda source, depth: "".join(part(source, depth) for part in parts)

    def _item(self) -> _Part | None:
        if self._next >= len(self._tokens):
            return None
        token = self._tokens[self._next]
        if token["define"] is not None or token["symbol"] in ("|", ")"):
            return None
        self._next += 1
        if token["literal"] is not None:
            literal = _unescape(token["literal"])
            return lambda _source, _depth: literal
        if token["characters"] is not None:
            characters = _class(token["characters"], bool(token["negated"]))
            return lambda source, _depth: source.choice(characters)
        if token["name"] is not None:
            return self._reference(token["name"])
        if token["symbol"] == "(":
            group = self._alternatives()
            if self._symbol() != ")":
                raise _refuse("a group is not closed")
            self._next += 1
            return group
        raise _refuse("a repetition stands without anything to repeat")

    def _reference(self, name: str) -> _Part:
        def expand(source: random.Random, depth: int) -> str:
            if name not in self._rules:
                raise _refuse(f"the rule {name} is missing")
            if depth > _DEEPEST:
                raise _refuse(f"the rule {name} repeats itself too often")
            return self._rules[name](source, depth + 1)

        return expand

    def _repeated(self, part: _Part) -> _Part:
        if self._next >= len(self._tokens):
            return part
        token = self._tokens[self._next]
        symbol = token["symbol"]
        if symbol in ("?", "*", "+"):
            low, high = {"?": (0, 1), "*": (0, _OPEN_END), "+": (1, _OPEN_END)}[symbol]
        elif token["low"] is not None:
            low = int(token["low"])
            high = low if token["range"] is None else int(token["high"] or low + _OPEN_END)
        else:
            return part
        self._next += 1
        return lambda source, depth: "".join(
            part(source, depth) for _ in range(source.randint(low, high))
        )


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[1]), text)


def _class(text: str, negated: bool) -> list[str]:
    members: list[str] = []
    for first, last in re.findall(r"(\\.|[^\\])(?:-(\\.|[^\\]))?", text):
        low = _unescape(first)
        high = _unescape(last) if last else low
        members += [chr(code) for code in range(ord(low), ord(high) + 1)]
    if negated:
        members = [character for character in _PRINTABLE if character not in members]
    if not members:
        raise _refuse("a character class is empty")
    return members
