"""Scores are the same whatever shares a batch, however long the question is.

That they agree with lm-evaluation-harness's is tried in `tests/end_to_end/test_agreement.py`.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from evalpool_worker.engine.base import (
    ChoiceQuestion,
    FailureCause,
    QuestionFailure,
    QuestionResult,
)
from evalpool_worker.engine.choice_tree import QuestionTooLongError
from evalpool_worker.engine.context import (
    ContextShape,
    DecodeContext,
    DecodeFailedError,
    NoRoomError,
)
from evalpool_worker.engine.llama_cpp import LlamaCppEngine
from evalpool_worker.engine.model import LoadedModel
from evalpool_worker.engine.scoring import Scorer, prepare_question
from evalpool_worker.engine.shape import EngineSettings, GrowingShape
from evalpool_worker.engine.tokenisation import Tokeniser
from tests.worker.engine.calls import (
    MEAN_PACKING_NOISE,
    NO_MEMORY,
    PACKING_NOISE,
    SMALL,
    sums,
)

SHAPE = ContextShape(cells=512, batch_tokens=64, sequences=8, outputs=16, threads=1)


@pytest.fixture(scope="module")
def shapes(model: LoadedModel) -> GrowingShape:
    return GrowingShape(SHAPE, model)


@pytest.fixture
def context(model: LoadedModel) -> Any:
    made = DecodeContext(model, SHAPE)
    yield made
    made.free()


def plain_sums(
    context: DecodeContext, tokeniser: Tokeniser, question: ChoiceQuestion
) -> list[float]:
    """Each choice on its own, every token's logits, exact sums: slow and with nothing clever."""
    results = []
    for choice in question.choices:
        pair = tokeniser.encode_pair(question.prompt, choice)
        total = 0.0
        for i, token in enumerate(pair.tokens[:-1]):
            context.fill([token], [i], [(0,)], [True])
            context.decode()
            if i + 1 >= pair.prompt_tokens:
                row = context.logits(1)[0].astype(np.float64)
                highest = row.max()
                total += row[pair.tokens[i + 1]] - highest - math.log(np.exp(row - highest).sum())
        context.forget_all()
        results.append(total)
    return results


async def test_a_question_alone_scores_as_it_does_among_others(
    llama: LlamaCppEngine, everyday: list[ChoiceQuestion]
) -> None:
    questions = everyday[:24]
    packed = await sums(llama, questions)
    differences = []
    for question in questions:
        alone = await sums(llama, [question])
        for one, other in zip(alone[question.id], packed[question.id], strict=True):
            differences.append(abs(one - other))
    assert max(differences) < PACKING_NOISE
    assert sum(differences) / len(differences) < MEAN_PACKING_NOISE


def test_what_fills_a_batch_up_takes_no_room_from_what_is_read(model: LoadedModel) -> None:
    filled = DecodeContext(
        model, ContextShape(64, 32, 4, 4, threads=1, fewest_tokens=32, spare_sequences=1)
    )
    try:
        for position in range(64):
            filled.fill([100 + position], [position], [(3,)], [True])
            filled.decode()
        after_filled = filled.logits(1).copy()
    finally:
        filled.free()
    plain = DecodeContext(model, ContextShape(64, 64, 4, 4, threads=1))
    try:
        plain.fill(range(100, 164), range(64), [(3,)] * 64, [False] * 63 + [True])
        plain.decode()
        np.testing.assert_allclose(after_filled, plain.logits(1), atol=2.0)
        assert after_filled.argmax() == plain.logits(1).argmax()
    finally:
        plain.free()


async def test_a_long_question_gets_on_by_the_batch(
    llama: LlamaCppEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    decode = DecodeContext.decode

    def look(context: DecodeContext) -> None:
        seen.append(llama.load_now.computed_tokens)
        decode(context)

    monkeypatch.setattr(DecodeContext, "decode", look)
    await sums(llama, [ChoiceQuestion("long", "word " * 600, (" yes",))])
    assert seen == [0, 256, 512]


async def test_the_same_call_scores_the_same_to_the_last_bit(
    llama: LlamaCppEngine, everyday: list[ChoiceQuestion]
) -> None:
    questions, other = everyday[:40], everyday[40:60]
    first = await sums(llama, questions)
    again, _ = await asyncio.gather(sums(llama, questions), sums(llama, other))
    assert again == first


async def test_what_is_shared_is_computed_once(llama: LlamaCppEngine) -> None:
    prompt = "The quick brown fox jumps over the lazy"
    one = ChoiceQuestion("one", prompt, (" dog",))
    many = ChoiceQuestion("many", prompt, (" dog", " cat", " hen"))
    results = [outcome async for outcome in llama.score((one, many))]
    tokens = {
        outcome.id: outcome.computed_tokens
        for outcome in results
        if isinstance(outcome, QuestionResult)
    }
    assert tokens["many"] == tokens["one"]


@pytest.mark.parametrize(
    "question",
    [
        ChoiceQuestion("letters", "The alphabet:", tuple(f" {chr(65 + i)}" for i in range(26))),
        ChoiceQuestion("sheep", "I count to", tuple(f" {i} sheep on a hill" for i in range(30))),
        ChoiceQuestion("nested", "He said", (" yes", " yes and", " yes and no", " no")),
        ChoiceQuestion("spaces", "He said  ", ("yes", "no")),
        ChoiceQuestion("empty", "", ("Yes", "No")),
        ChoiceQuestion("long", "word " * 150 + "\nA:", (" word" * 40, " something else")),
    ],
    ids=lambda question: question.id,
)
def test_trees_score_as_plain_texts_do(
    tokeniser: Tokeniser, shapes: GrowingShape, context: DecodeContext, question: ChoiceQuestion
) -> None:
    expected = plain_sums(context, tokeniser, question)
    for share in (True, False):
        prepared = prepare_question(question, tokeniser, shapes, share)
        [scores] = Scorer(context).score([prepared], lambda: True)
        found = [score.sum_logprob for score in scores]
        assert found == pytest.approx(expected, abs=PACKING_NOISE)


class Stubborn:
    """A context that finds no room for batches above a size, as a fragmented cache would."""

    def __init__(self, context: DecodeContext, most: int) -> None:
        self._context = context
        self._most = most
        self._size = 0
        self.refusals = 0
        self.shape = context.shape

    def fill(self, tokens: Sequence[int], *columns: Any) -> None:
        self._size = len(tokens)
        self._context.fill(tokens, *columns)

    def decode(self) -> None:
        if self._size > self._most:
            self.refusals += 1
            raise NoRoomError("no room")
        self._context.decode()

    def logits(self, rows: int) -> NDArray[np.float32]:
        return self._context.logits(rows)

    def forget_all(self) -> None:
        self._context.forget_all()


def test_a_batch_without_room_is_tried_again_smaller(
    tokeniser: Tokeniser, shapes: GrowingShape, context: DecodeContext
) -> None:
    questions = [
        ChoiceQuestion("one", "He said that he would", (" come", " go away")),
        ChoiceQuestion("two", "She said that she would never", (" come back", " go")),
    ]
    pack = [prepare_question(question, tokeniser, shapes, True) for question in questions]
    expected = Scorer(context).score(pack, lambda: True)
    stubborn = Stubborn(context, most=8)
    found = Scorer(stubborn).score(pack, lambda: True)  # type: ignore[arg-type]
    assert stubborn.refusals > 0
    for some, others in zip(found, expected, strict=True):
        assert [score.sum_logprob for score in some] == pytest.approx(
            [score.sum_logprob for score in others], abs=PACKING_NOISE
        )


def test_a_cache_that_never_has_room_is_an_error(
    tokeniser: Tokeniser, shapes: GrowingShape, context: DecodeContext
) -> None:
    question = ChoiceQuestion("one", "He said that he would", (" come", " go away"))
    pack = [prepare_question(question, tokeniser, shapes, True)]
    with pytest.raises(NoRoomError):
        Scorer(Stubborn(context, most=0)).score(pack, lambda: True)  # type: ignore[arg-type]


def test_a_choice_that_does_not_fit_the_models_context_is_named(
    tokeniser: Tokeniser, shapes: GrowingShape
) -> None:
    question = ChoiceQuestion("one", "He said", (" yes", " no" * 8191))
    with pytest.raises(
        QuestionTooLongError, match="choice 2 has 8193 tokens; the model's context holds 8192"
    ):
        prepare_question(question, tokeniser, shapes, True)


def test_a_batch_above_the_shape_never_reaches_llama_cpp(context: DecodeContext) -> None:
    for tokens, outputs in ((65, 0), (32, 17)):
        wants = [i < outputs for i in range(tokens)]
        with pytest.raises(ValueError, match="larger than the context's shape"):
            context.fill([1] * tokens, range(tokens), [(0,)] * tokens, wants)


async def test_a_failed_batch_fails_alone_and_the_engine_goes_on(
    llama: LlamaCppEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = ChoiceQuestion("one", "He said", (" yes", " no"))
    decode = DecodeContext.decode
    failures = iter([True])

    def fail_once(context: DecodeContext) -> None:
        if next(failures, False):
            raise DecodeFailedError("llama.cpp could not compute a batch (code -3).")
        decode(context)

    monkeypatch.setattr(DecodeContext, "decode", fail_once)
    [failed] = [outcome async for outcome in llama.score((question,))]
    assert failed == QuestionFailure(
        "one", "llama.cpp could not compute a batch (code -3).", FailureCause.ENGINE
    )
    assert "one" in await sums(llama, (question,))


async def test_questions_longer_than_the_usual_context_score_as_in_a_long_one(
    smollm2_path: Path,
) -> None:
    context = "Sam walked to the shop and bought some bread and milk for his mother. " * 5
    questions = [
        ChoiceQuestion("short", "The sky is", (" blue", " loud")),
        ChoiceQuestion("long", context + "Sam went to the", (" shop", " moon", " shop again")),
        ChoiceQuestion("longer", context * 2 + "Sam bought", (" bread", " a moon")),
        ChoiceQuestion("wide", context, tuple(f" {n} more" for n in range(34))),
    ]
    found = []
    for settings in (SMALL, EngineSettings(threads=1)):
        engine = LlamaCppEngine(settings)
        await engine.load(smollm2_path, "digest")
        found.append(await sums(engine, questions))
        await engine.close()
    for id, expected in found[1].items():
        assert found[0][id] == pytest.approx(expected, abs=2 * PACKING_NOISE), id


async def test_a_question_too_long_for_the_memory_fails_alone_and_can_be_tried_elsewhere(
    smollm2_path: Path,
) -> None:
    engine = LlamaCppEngine(SMALL, free_memory=lambda: 0)
    await engine.load(smollm2_path, "digest")
    questions = [
        ChoiceQuestion("short", "The sky is", (" blue", " loud")),
        ChoiceQuestion("long", "word " * 100, (" yes", " no")),
        ChoiceQuestion("shorter", "The sea is", (" blue", " loud")),
    ]
    outcomes = {outcome.id: outcome async for outcome in engine.score(questions)}
    assert isinstance(outcomes["short"], QuestionResult)
    assert isinstance(outcomes["shorter"], QuestionResult)
    failed = outcomes["long"]
    assert isinstance(failed, QuestionFailure)
    assert failed.cause is FailureCause.ENGINE
    assert failed.retriable
    assert re.match(NO_MEMORY, failed.reason)
    await engine.close()
