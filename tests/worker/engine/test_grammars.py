"""A grammar is followed in a process of its own, and ends alone where it takes too much."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
import pytest

from evalpool_worker.engine.base import FinishReason, SamplingParameters
from evalpool_worker.engine.errors import EngineError, InvalidParametersError
from evalpool_worker.engine.grammars import Asking, Grammars
from evalpool_worker.engine.llama_cpp import LlamaCppEngine
from evalpool_worker.engine.model import LoadedModel
from evalpool_worker.engine.tokenisation import Tokeniser
from tests.worker.engine.calls import collect

T = TypeVar("T")

MARKS = 'x ::= "x"\ny ::= "y"'
# Each "-" doubles the ways in which the text may end.
DOUBLING = f'root ::= "-" root x | "-" root y | "-"\n{MARKS}'
# Takes no memory: a token of n letters and an "s" is tried in 8 ** n ways before it is rejected.
LOOKING_AHEAD = f'root ::= ({" | ".join(["[a-rt-z]"] * 8)}) root | "Z"'
# 2 ** 40 ways before the first character.
DOUBLED = "\n".join(
    [
        "root ::= r0",
        *(f"r{depth} ::= r{depth + 1} x | r{depth + 1} y" for depth in range(40)),
        'r40 ::= "a"',
        MARKS,
    ]
)
# 120,000,000 characters.
LARGE = f'root ::= "{"a" * 60_000}"{{2000}}'


def told(asking: Asking[T]) -> T:
    """What comes of asking, whenever the answer comes."""
    while True:
        try:
            next(asking)
        except StopIteration as answer:
            return cast(T, answer.value)


@pytest.fixture
def grammars(smollm2_path: Path) -> Iterator[Grammars]:
    made = Grammars(smollm2_path)
    yield made
    made.close()


@pytest.mark.parametrize("grammar", [DOUBLING, LOOKING_AHEAD])
async def test_an_ambiguous_grammar_ends_its_own_stream_and_no_other(
    llama: LlamaCppEngine, grammar: str
) -> None:
    plain = SamplingParameters(max_tokens=24, temperature=0.0)
    hostile = SamplingParameters(max_tokens=200, temperature=0.0, grammar=grammar)
    strict = SamplingParameters(max_tokens=24, temperature=0.0, grammar='root ::= "yes, "+')
    (_, failed), (_, end), (yes, other) = await asyncio.gather(
        collect(llama, "- - - - -", hostile),
        collect(llama, "Once upon a time", plain),
        collect(llama, "Yes, yes, ", strict),
    )
    assert failed.finish_reason is FinishReason.ERROR
    assert failed.message.startswith("grammar is too ambiguous: ")
    assert failed.refused == "grammar"
    assert (end.finish_reason, end.completion_tokens) == (FinishReason.LENGTH, 24)
    assert (other.finish_reason, other.completion_tokens) == (FinishReason.LENGTH, 24)
    assert yes.startswith("yes, yes, ")


async def test_a_grammar_that_leads_nowhere_ends_its_stream_as_the_callers_fault(
    llama: LlamaCppEngine,
) -> None:
    no_character = r"[^\x00-\U0010FFFF]"
    grammar = f'root ::= "yes" {no_character}'
    parameters = SamplingParameters(max_tokens=9, temperature=0.0, grammar=grammar)
    text, end = await collect(llama, "Yes or no?", parameters)
    assert text == "yes"
    assert (end.finish_reason, end.refused) == (FinishReason.ERROR, "grammar")
    assert end.message.startswith("grammar allows no token of this model after ")


@pytest.mark.parametrize(
    ("text", "why"), [(DOUBLED, "is too ambiguous"), (LARGE, "is not valid GBNF")]
)
def test_one_that_takes_too_much_to_be_read_is_refused(
    grammars: Grammars, model: LoadedModel, text: str, why: str
) -> None:
    with pytest.raises(InvalidParametersError, match=f"^grammar ({why})") as refused:
        grammars.open(text, model.n_vocab)
    assert refused.value.field == "grammar"
    grammars.open('root ::= "yes"', model.n_vocab).close()


def test_it_allows_what_the_text_may_go_on_with(
    grammars: Grammars, model: LoadedModel, tokeniser: Tokeniser
) -> None:
    grammar = grammars.open('root ::= "10" | [2-9]', model.n_vocab)
    pieces = {tokeniser.piece(int(token)) for token in np.flatnonzero(told(grammar.allowed()))}
    assert pieces == {b"1", *(str(digit).encode() for digit in range(2, 10))}
    [one], [two], [zero] = (tokeniser.encode(digit) for digit in "120")
    assert not told(grammar.accepts(zero))
    assert told(grammar.accepts(one))
    assert not told(grammar.accepts(two))
    assert told(grammar.accepts(zero))
    [end] = np.flatnonzero(told(grammar.allowed()))[:1]
    assert tokeniser.ends_generation(int(end))
    grammar.close()


def test_each_grammar_stands_where_its_own_text_is(
    grammars: Grammars, model: LoadedModel, tokeniser: Tokeniser
) -> None:
    first, second = (grammars.open('root ::= "12"', model.n_vocab) for _ in range(2))
    [one], [two] = tokeniser.encode("1"), tokeniser.encode("2")
    assert told(first.accepts(one))
    assert not told(second.accepts(two))
    assert told(first.accepts(two))
    for each in (first, second):
        each.close()


def test_where_the_process_has_ended_the_next_grammar_gets_another(
    grammars: Grammars, model: LoadedModel
) -> None:
    grammars.open('root ::= "yes"', model.n_vocab).close()
    process = grammars._process
    assert process is not None
    process.kill()
    process.wait()
    grammars.open('root ::= "yes"', model.n_vocab).close()


def test_with_the_model_its_process_ends(smollm2_path: Path) -> None:
    model = LoadedModel(smollm2_path)
    model.grammars.open('root ::= "yes"', model.n_vocab).close()
    process = model.grammars._process
    assert process is not None
    model.free()
    assert process.returncode is not None


def test_a_process_that_cant_be_had_is_the_machines_fault(
    grammars: Grammars, model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grammars, "_hand_over", lambda theirs: theirs.close())
    with pytest.raises(EngineError, match="No process can be had") as failed:
        grammars.open('root ::= "yes"', model.n_vocab)
    assert not isinstance(failed.value, InvalidParametersError)


def test_a_file_that_cant_be_read_is_the_machines_fault(tmp_path: Path) -> None:
    grammars = Grammars(tmp_path / "gone.gguf")
    with pytest.raises(EngineError, match="can't be started") as failed:
        grammars.open('root ::= "yes"', 100)
    assert not isinstance(failed.value, InvalidParametersError)
