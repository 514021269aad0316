"""The fake engine's texts obey the grammars that this project writes."""

from __future__ import annotations

import random
import re

import pytest

from evalpool_worker.engine.errors import InvalidParametersError
from evalpool_worker.engine.fake_grammar import parse_grammar


@pytest.mark.parametrize(
    ("grammar", "form"),
    [
        ('root ::= "A" | "B" | "C"', "[ABC]"),
        ('root ::= "10" | [0-9]', "10|[0-9]"),
        ('root ::= item ("," item)*\nitem ::= [a-c]{2,3} # letters', "[a-c]{2,3}(,[a-c]{2,3})*"),
        ('root ::= "say \\"hi\\"\\n"?', '(say "hi"\n)?'),
        ('root ::= [^a-y]+ "!"', r"[^a-y]+!"),
        ('root ::= "x"{2} ("y" | "z")', "xx[yz]"),
        ('root ::= "[" [\\]\\-] "]"', r"\[[\]\-]\]"),
    ],
)
def test_texts_are_of_the_grammar(grammar: str, form: str) -> None:
    parsed = parse_grammar(grammar)
    for seed in range(50):
        assert re.fullmatch(form, parsed.text(random.Random(seed)))


@pytest.mark.parametrize(
    "grammar",
    ['answer ::= "yes"', "root ::= (", 'root ::= ("a"', "root ::= *", '"a"', "root ::= @"],
)
def test_what_is_no_grammar_is_refused(grammar: str) -> None:
    with pytest.raises(InvalidParametersError) as refused:
        parse_grammar(grammar)
    assert refused.value.field == "grammar"


def test_a_missing_rule_is_named() -> None:
    with pytest.raises(InvalidParametersError, match="the rule other is missing"):
        parse_grammar("root ::= other").text(random.Random(0))
