"""What every engine keeps: the fake one, llama.cpp and a server, both with a real model."""

from __future__ import annotations

import asyncio
import math
import re
from pathlib import Path

import pytest

from evalpool_worker.engine.base import (
    ChoiceQuestion,
    Engine,
    FailureCause,
    FinishReason,
    QuestionFailure,
    QuestionResult,
    SamplingParameters,
)
from evalpool_worker.engine.errors import (
    ModelAlreadyLoadedError,
    ModelLoadError,
    NoModelLoadedError,
)
from tests.worker.engine.calls import PACKING_NOISE
from tests.worker.engine.contract import (
    GREEDY,
    QUESTIONS,
    generate,
    own_model,
    score,
)


async def test_loading_tells_progress_and_what_was_loaded(
    empty_engine: Engine, model_path: Path, engine_name: str
) -> None:
    shares: list[float] = []
    info = await empty_engine.load(model_path, "abc", shares.append)
    assert empty_engine.info == info
    assert (info.engine, info.model_digest) == (engine_name, "abc")
    assert info.engine_build
    await asyncio.sleep(0)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


@own_model
async def test_a_file_that_is_no_model_is_refused(empty_engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "notes.gguf"
    path.write_text("these are notes")
    with pytest.raises(ModelLoadError, match=r"notes\.gguf can't be loaded as a GGUF model"):
        await empty_engine.load(path, "abc")
    assert empty_engine.info is None


@own_model
async def test_a_missing_file_is_refused(empty_engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"gone\.gguf"):
        await empty_engine.load(tmp_path / "gone.gguf", "abc")


async def test_a_second_model_needs_the_first_to_be_unloaded(
    engine: Engine, model_path: Path
) -> None:
    with pytest.raises(ModelAlreadyLoadedError):
        await engine.load(model_path, "other")
    await engine.unload()
    assert engine.info is None
    info = await engine.load(model_path, "other")
    assert info.model_digest == "other"
    assert len(await score(engine, QUESTIONS[:1])) == 1


async def test_without_a_model_nothing_is_scored_or_generated(empty_engine: Engine) -> None:
    with pytest.raises(NoModelLoadedError):
        await anext(aiter(empty_engine.score(QUESTIONS)))
    with pytest.raises(NoModelLoadedError):
        await anext(aiter(empty_engine.generate("Hello", GREEDY)))


@own_model
async def test_every_question_gets_a_score_a_choice(engine: Engine) -> None:
    for outcome in (await score(engine, QUESTIONS)).values():
        assert isinstance(outcome, QuestionResult)
        assert len(outcome.scores) == 4
        for choice in outcome.scores:
            assert math.isfinite(choice.sum_logprob)
            assert choice.sum_logprob < 0
            assert choice.tokens >= 1
        assert outcome.prompt_tokens > 0
        assert outcome.computed_tokens > 0
        assert outcome.started_at <= outcome.finished_at


async def test_no_questions_are_no_results(engine: Engine) -> None:
    assert await score(engine, ()) == {}


@own_model
async def test_two_callers_get_their_own_results(engine: Engine) -> None:
    first, second = await asyncio.gather(score(engine, QUESTIONS[:6]), score(engine, QUESTIONS[6:]))
    assert set(first) == {q.id for q in QUESTIONS[:6]}
    assert set(second) == {q.id for q in QUESTIONS[6:]}


@own_model
async def test_one_choice_and_many_choices_are_scored(engine: Engine) -> None:
    many = ChoiceQuestion("many", "The letter is", tuple(f" {chr(65 + i)}" for i in range(26)))
    hundred = ChoiceQuestion("hundred", "I count to", tuple(f" {i} sheep" for i in range(100)))
    one = ChoiceQuestion("one", "Two and two is", (" four",))
    outcomes = await score(engine, (many, hundred, one))
    for question in (many, hundred, one):
        outcome = outcomes[question.id]
        assert isinstance(outcome, QuestionResult)
        assert len(outcome.scores) == len(question.choices)


@own_model
async def test_each_choice_may_have_a_prompt_of_its_own(engine: Engine) -> None:
    prompts = ("The trophy is too big, for the trophy", "The box is too small, for the box")
    choices = (" does not fit.", " does not fit.")
    alone = [
        ChoiceQuestion(prompt, prompt, (choice,))
        for prompt, choice in zip(prompts, choices, strict=True)
    ]
    outcomes = await score(engine, (ChoiceQuestion("both", "", choices, prompts), *alone))
    both = outcomes["both"]
    assert isinstance(both, QuestionResult)
    for question, found in zip(alone, both.scores, strict=True):
        single = outcomes[question.id]
        assert isinstance(single, QuestionResult)
        assert found.tokens == single.scores[0].tokens
        assert abs(found.sum_logprob - single.scores[0].sum_logprob) < PACKING_NOISE
    assert both.scores[0] != both.scores[1]


@own_model
async def test_what_cant_be_scored_fails_alone_and_says_why(engine: Engine) -> None:
    bad = {
        "none": ((), "no choices", FailureCause.QUESTION),
        "empty": ((" yes", ""), "Choice 2 adds no tokens", FailureCause.QUESTION),
        "same": ((" yes", " yes"), "All choices are the same", FailureCause.QUESTION),
        "long": (
            (" yes", " very" * 9000),
            r"choice 2 has \d+ tokens; the model's context holds \d+\.",
            FailureCause.CONTEXT,
        ),
    }
    questions = [ChoiceQuestion(id, "Is it so?", choices) for id, (choices, *_) in bad.items()]
    outcomes = await score(engine, (*QUESTIONS[:2], *questions, *QUESTIONS[2:4]))
    for id, (_, reason, cause) in bad.items():
        outcome = outcomes[id]
        assert isinstance(outcome, QuestionFailure)
        assert re.search(reason, outcome.reason)
        assert outcome.cause is cause
        assert not outcome.retriable
    for question in QUESTIONS[:4]:
        assert isinstance(outcomes[question.id], QuestionResult)


@own_model
async def test_scores_are_the_same_every_time(engine: Engine) -> None:
    first, again = await score(engine, QUESTIONS[:1]), await score(engine, QUESTIONS[:1])
    one, two = first["q0"], again["q0"]
    assert isinstance(one, QuestionResult)
    assert isinstance(two, QuestionResult)
    assert one.scores == two.scores


@own_model
async def test_a_cancelled_call_leaves_the_engine_free(engine: Engine) -> None:
    results = engine.score(QUESTIONS * 50)
    await anext(aiter(results))
    assert engine.load_now.questions_waiting > 0
    await results.aclose()  # type: ignore[attr-defined]
    assert engine.load_now.questions_waiting == 0
    await engine.wait_idle()
    assert len(await score(engine, QUESTIONS)) == len(QUESTIONS)


@own_model
async def test_a_cancelled_task_leaves_the_engine_free(engine: Engine) -> None:
    begun = asyncio.Event()

    async def consume() -> None:
        async for _ in engine.score(QUESTIONS * 50):
            begun.set()

    task = asyncio.create_task(consume())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await engine.wait_idle()


@own_model
async def test_unloading_fails_what_is_left_as_retriable(engine: Engine) -> None:
    outcomes: list[QuestionResult | QuestionFailure] = []
    begun = asyncio.Event()

    async def consume() -> None:
        async for outcome in engine.score(QUESTIONS * 50):
            outcomes.append(outcome)
            begun.set()

    task = asyncio.create_task(consume())
    await begun.wait()
    await engine.unload()
    await task
    assert len(outcomes) == len(QUESTIONS) * 50
    failures = [outcome for outcome in outcomes if isinstance(outcome, QuestionFailure)]
    assert failures
    assert {failure.cause for failure in failures} == {FailureCause.UNLOADED}
    assert all(failure.retriable for failure in failures)


@own_model
async def test_scoring_and_generating_go_side_by_side(engine: Engine) -> None:
    outcomes, (_, end) = await asyncio.gather(
        score(engine, QUESTIONS), generate(engine, "Hello", GREEDY)
    )
    assert all(isinstance(outcome, QuestionResult) for outcome in outcomes.values())
    assert end.finish_reason in (FinishReason.STOP, FinishReason.LENGTH)


async def test_a_closed_engine_loads_nothing(empty_engine: Engine, model_path: Path) -> None:
    await empty_engine.close()
    with pytest.raises(ModelLoadError, match="closed"):
        await empty_engine.load(model_path, "abc")


async def test_waiting_for_idleness_ends_when_the_model_goes(engine: Engine) -> None:
    endless = SamplingParameters(max_tokens=400, temperature=1.0, seed=1)
    stream = engine.generate("Count: 1, 2, 3,", endless)
    await anext(aiter(stream))
    waiting = asyncio.create_task(engine.wait_idle())
    await asyncio.sleep(0)
    assert not waiting.done()
    unloading = asyncio.create_task(engine.unload())
    assert [event async for event in stream]
    await unloading
    await waiting
