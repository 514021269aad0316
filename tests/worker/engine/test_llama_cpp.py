"""What only a real model shows: agreement with the reference, packing, failures of llama.cpp."""

from __future__ import annotations

import asyncio
import gc
import math
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from evalpool_worker.engine.base import (
    ChatMessage,
    ChoiceQuestion,
    FailureCause,
    FinishReason,
    GenerationChunk,
    GenerationEnd,
    QuestionFailure,
    QuestionResult,
    SamplingParameters,
)
from evalpool_worker.engine.choice_tree import QuestionTooLongError
from evalpool_worker.engine.context import (
    ContextShape,
    DecodeContext,
    DecodeFailedError,
    NoRoomError,
)
from evalpool_worker.engine.errors import EngineError, ModelLoadError, NoModelLoadedError
from evalpool_worker.engine.llama_cpp import LlamaCppEngine
from evalpool_worker.engine.long_contexts import LongContexts
from evalpool_worker.engine.model import LoadedModel
from evalpool_worker.engine.sampling import TokenSampler
from evalpool_worker.engine.scoring import Scorer, prepare_question
from evalpool_worker.engine.shape import EngineSettings, GrowingShape
from evalpool_worker.engine.tokenisation import EncodedPair, Tokeniser

# In another batch a question's cells lie elsewhere, so attention adds in another order; rounding
# activations to 8 bits then makes small differences large. Over 200 questions of Social IQa a sum
# moved by 0.05 on average and 0.5 at most, a third of its distance from 32-bit floats.
PACKING_NOISE = 1.0
MEAN_PACKING_NOISE = 0.15

Siqa = list[tuple[ChoiceQuestion, dict[str, Any]]]

SHAPE = ContextShape(cells=512, batch_tokens=64, sequences=8, outputs=16, threads=1)


@pytest.fixture(scope="module")
def model(smollm2_path: Path) -> Any:
    loaded = LoadedModel(smollm2_path)
    yield loaded
    gc.collect()
    loaded.free()


@pytest.fixture(scope="module")
def tokeniser(model: LoadedModel) -> Tokeniser:
    return Tokeniser(model)


@pytest.fixture(scope="module")
def shapes(model: LoadedModel) -> GrowingShape:
    return GrowingShape(SHAPE, model)


@pytest.fixture
def context(model: LoadedModel) -> Any:
    made = DecodeContext(model, SHAPE)
    yield made
    made.free()


async def sums(
    engine: LlamaCppEngine, questions: Sequence[ChoiceQuestion]
) -> dict[str, list[float]]:
    results: dict[str, list[float]] = {}
    async for outcome in engine.score(questions):
        assert isinstance(outcome, QuestionResult), outcome
        results[outcome.id] = [score.sum_logprob for score in outcome.scores]
    return results


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


async def test_sums_agree_with_lm_evaluation_harness(llama: LlamaCppEngine, siqa: Siqa) -> None:
    part = siqa[:100]
    found = await sums(llama, [question for question, _ in part])
    differences = []
    same = 0
    for question, expected in part:
        ours, theirs = found[question.id], expected["sum_logprob"]
        differences += [abs(a - b) for a, b in zip(ours, theirs, strict=True)]
        same += ours.index(max(ours)) + 1 == expected["acc_choice"]
    # llama.cpp multiplies with 8-bit activations, the reference with 32-bit floats.
    assert sum(differences) / len(differences) < 0.25
    assert max(differences) < 1.5
    # The target on all 1,000 is 97 %; of 100, one more may fall on the other side of a near tie.
    assert same >= 96


async def test_a_question_alone_scores_as_it_does_among_others(
    llama: LlamaCppEngine, siqa: Siqa
) -> None:
    questions = [question for question, _ in siqa[:24]]
    packed = await sums(llama, questions)
    differences = []
    for question in questions:
        alone = await sums(llama, [question])
        for one, other in zip(alone[question.id], packed[question.id], strict=True):
            differences.append(abs(one - other))
    assert max(differences) < PACKING_NOISE
    assert sum(differences) / len(differences) < MEAN_PACKING_NOISE


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
    llama: LlamaCppEngine, siqa: Siqa
) -> None:
    questions = [question for question, _ in siqa[:40]]
    other = [question for question, _ in siqa[40:60]]
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


def test_spaces_at_the_end_of_the_prompt_belong_to_the_continuation(tokeniser: Tokeniser) -> None:
    moved = tokeniser.encode_pair("He said ", "yes")
    assert moved == tokeniser.encode_pair("He said", " yes")
    assert moved.prompt_tokens == len(tokeniser.encode("He said"))


def test_an_empty_prompt_is_the_token_that_texts_begin_with(tokeniser: Tokeniser) -> None:
    pair = tokeniser.encode_pair("", "Yes")
    assert pair.prompt_tokens == 1
    assert pair == EncodedPair((pair.tokens[0], *tokeniser.encode("Yes")), 1)


def test_pieces_join_to_the_text(tokeniser: Tokeniser) -> None:
    text = "naïve 東京 🙂\n\tfoo_bar(x) == 'y'"
    assert b"".join(tokeniser.piece(token) for token in tokeniser.encode(text)).decode() == text


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


async def test_a_failed_step_ends_its_streams_and_the_engine_goes_on(
    llama: LlamaCppEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = DecodeContext.decode
    failures = iter([False, False, True])

    def fail_third(context: DecodeContext) -> None:
        if next(failures, False):
            raise DecodeFailedError("llama.cpp could not compute a batch (code -3).")
        decode(context)

    monkeypatch.setattr(DecodeContext, "decode", fail_third)
    parameters = SamplingParameters(max_tokens=8, temperature=0.0)
    ends = []
    for _ in range(2):
        events = [event async for event in llama.generate("One, two,", parameters)]
        ends.append(events[-1])
    first, second = ends
    assert isinstance(first, GenerationEnd)
    assert isinstance(second, GenerationEnd)
    assert first.finish_reason is FinishReason.ERROR
    assert first.message == "llama.cpp could not compute a batch (code -3)."
    assert second.finish_reason in (FinishReason.LENGTH, FinishReason.STOP)


async def test_logits_that_are_not_finite_fail_the_question_and_the_stream(
    llama: LlamaCppEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = DecodeContext.logits

    def poisoned(context: DecodeContext, rows: int) -> NDArray[np.float32]:
        values = logits(context, rows).copy()
        values[:, 5] = np.nan
        return values

    monkeypatch.setattr(DecodeContext, "logits", poisoned)
    question = ChoiceQuestion("one", "He said", (" yes", " no"))
    [failed] = [outcome async for outcome in llama.score((question,))]
    assert isinstance(failed, QuestionFailure)
    assert "not a finite number" in failed.reason
    assert failed.cause is FailureCause.QUESTION
    *_, end = [event async for event in llama.generate("Hello", SamplingParameters(max_tokens=4))]
    assert isinstance(end, GenerationEnd)
    assert end.finish_reason is FinishReason.ERROR
    assert end.message == "The model's logits are not finite numbers."


async def test_a_context_that_cant_be_made_fails_what_needed_it(
    llama: LlamaCppEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object) -> None:
        raise EngineError("A context of 2048 tokens can't be made; there may be too little memory.")

    monkeypatch.setattr(DecodeContext, "__init__", refuse)
    question = ChoiceQuestion("one", "He said", (" yes", " no"))
    [failed] = [outcome async for outcome in llama.score((question,))]
    assert isinstance(failed, QuestionFailure)
    assert failed.retriable
    *_, end = [event async for event in llama.generate("Hello", SamplingParameters(max_tokens=4))]
    assert isinstance(end, GenerationEnd)
    assert end.finish_reason is FinishReason.ERROR


async def test_streams_that_fill_the_cache_take_turns_and_all_finish(smollm2_path: Path) -> None:
    engine = LlamaCppEngine(
        EngineSettings(
            threads=1, generate_context_tokens=96, generate_batch_tokens=32, generate_slots=4
        )
    )
    await engine.load(smollm2_path, "digest")
    grammar = 'root ::= ("la ")+ "."'
    parameters = SamplingParameters(max_tokens=91, temperature=0.0, grammar=grammar)
    # Each comes to fill the whole cache, though they begin side by side.
    streams = [_collect(engine, "Sing: la la la", parameters) for _ in range(3)]
    for text, end in await asyncio.gather(*streams):
        assert end.finish_reason is FinishReason.LENGTH
        assert end.prompt_tokens + end.completion_tokens == 96
        assert re.fullmatch("(la )+(l|la)?", text)
    await engine.close()


# Smaller than what the tests put into them.
SMALL = EngineSettings(
    threads=1,
    score_context_tokens=64,
    score_batch_tokens=32,
    generate_context_tokens=64,
    generate_batch_tokens=32,
    generate_slots=4,
)
NO_MEMORY = r"A context of \d+ tokens takes \d+ MiB of memory, and this worker has 0 MiB left"


async def test_streams_that_outgrow_the_usual_context_get_a_longer_one(smollm2_path: Path) -> None:
    engine = LlamaCppEngine(SMALL)
    await engine.load(smollm2_path, "digest")
    grammar = 'root ::= ("la ")+ "."'
    parameters = SamplingParameters(max_tokens=150, temperature=0.0, grammar=grammar)
    streams = [_collect(engine, "Sing: la la la", parameters) for _ in range(2)]
    for text, end in await asyncio.gather(*streams):
        assert end.finish_reason is FinishReason.LENGTH
        assert end.completion_tokens == 150
        assert re.fullmatch("(la )+(l|la)?", text)
    await engine.close()


async def test_a_longer_context_goes_when_no_stream_is_left(
    smollm2_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    make, free = LongContexts.make, LongContexts.free

    def noted_make(contexts: LongContexts, shape: ContextShape, *, wait: bool) -> DecodeContext:
        events.append("made")
        return make(contexts, shape, wait=wait)

    def noted_free(contexts: LongContexts, context: DecodeContext) -> None:
        events.append("freed")
        free(contexts, context)

    monkeypatch.setattr(LongContexts, "make", noted_make)
    monkeypatch.setattr(LongContexts, "free", noted_free)
    engine = LlamaCppEngine(SMALL)
    await engine.load(smollm2_path, "digest")
    parameters = SamplingParameters(max_tokens=2, temperature=0.0)
    for prompt in ("word " * 100, "One, two,", "word " * 200, "One, two,"):
        await _collect(engine, prompt, parameters)
    assert events == ["made", "freed"] * 2
    await engine.close()


async def test_a_prompt_longer_than_the_usual_context_is_read_to_its_end(
    smollm2_path: Path,
) -> None:
    words = "The magic word is PINEAPPLE. Remember it well. " + "Then it rained all day. " * 30
    prompt = words + "\nThe magic word is"
    parameters = SamplingParameters(max_tokens=8, temperature=0.0)
    texts = []
    for settings in (SMALL, EngineSettings(threads=1)):
        engine = LlamaCppEngine(settings)
        await engine.load(smollm2_path, "digest")
        short, long = await asyncio.gather(
            _collect(engine, "One, two, three,", parameters), _collect(engine, prompt, parameters)
        )
        assert long[1].prompt_tokens > 64
        texts.append([short[0], long[0]])
        await engine.close()
    assert texts[0] == texts[1]


async def test_a_prompt_too_long_for_the_memory_fails_alone_and_can_be_tried_elsewhere(
    smollm2_path: Path,
) -> None:
    engine = LlamaCppEngine(SMALL, free_memory=lambda: 0)
    await engine.load(smollm2_path, "digest")
    parameters = SamplingParameters(max_tokens=8, temperature=0.0)
    (_, short), (text, long) = await asyncio.gather(
        _collect(engine, "One, two, three,", parameters),
        _collect(engine, "word " * 100, parameters),
    )
    assert short.finish_reason in (FinishReason.LENGTH, FinishReason.STOP)
    assert text == ""
    assert long.finish_reason is FinishReason.ERROR
    assert re.match(NO_MEMORY, long.message)
    await engine.wait_idle()
    await engine.close()


async def test_a_stream_that_outgrows_the_memory_ends_and_the_others_go_on(
    smollm2_path: Path,
) -> None:
    engine = LlamaCppEngine(SMALL, free_memory=lambda: 0)
    await engine.load(smollm2_path, "digest")
    grammar = 'root ::= ("la ")+ "."'
    parameters = SamplingParameters(max_tokens=100, temperature=0.0, grammar=grammar)
    short = replace(parameters, max_tokens=40)
    (text, long), (_, end) = await asyncio.gather(
        _collect(engine, "Sing: la la la", parameters), _collect(engine, "Sing: la", short)
    )
    assert long.finish_reason is FinishReason.ERROR
    assert long.prompt_tokens + long.completion_tokens == 65
    assert text.startswith("la la")
    assert end.finish_reason is FinishReason.LENGTH
    await engine.close()


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


async def _collect(
    engine: LlamaCppEngine, prompt: str, parameters: SamplingParameters
) -> tuple[str, GenerationEnd]:
    *chunks, end = [event async for event in engine.generate(prompt, parameters)]
    assert isinstance(end, GenerationEnd)
    return "".join(chunk.text for chunk in chunks if isinstance(chunk, GenerationChunk)), end


async def test_a_prompt_longer_than_a_batch_is_computed_in_chunks(smollm2_path: Path) -> None:
    text = "One two three four five six seven eight nine ten. " * 8
    parameters = SamplingParameters(max_tokens=8, temperature=0.0)
    texts = []
    for batch in (16, 256):
        engine = LlamaCppEngine(
            EngineSettings(generate_context_tokens=512, generate_batch_tokens=batch)
        )
        await engine.load(smollm2_path, "digest")
        texts.append([e async for e in engine.generate(text, parameters)][:-1])
        await engine.close()
    assert texts[0] == texts[1]


async def test_a_penalty_keeps_a_token_from_coming_again(llama: LlamaCppEngine) -> None:
    async def tokens(frequency_penalty: float) -> list[int]:
        parameters = SamplingParameters(
            max_tokens=24, temperature=0.0, frequency_penalty=frequency_penalty
        )
        events = [e async for e in llama.generate("la la la la la la la", parameters)][:-1]
        return [token for chunk in events for token in getattr(chunk, "token_ids", ())]

    free, penalised = await tokens(0.0), await tokens(100.0)
    assert len(set(free)) < len(free)
    assert len(set(penalised)) == len(penalised)


async def test_a_truncated_file_is_refused(smollm2_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "half.gguf"
    with smollm2_path.open("rb") as whole:
        path.write_bytes(whole.read(4_000_000))
    engine = LlamaCppEngine()
    with pytest.raises(ModelLoadError, match=r"half\.gguf can't be loaded as a GGUF model: .+"):
        await engine.load(path, "digest")
    await engine.close()


async def test_a_cancelled_load_leaves_the_engine_empty(smollm2_path: Path) -> None:
    engine = LlamaCppEngine()
    begun = asyncio.Event()
    loading = asyncio.create_task(engine.load(smollm2_path, "digest", lambda _share: begun.set()))
    await begun.wait()
    loading.cancel()
    await asyncio.wait([loading])
    if loading.cancelled():
        assert engine.info is None
        assert (await engine.load(smollm2_path, "digest")).model_digest == "digest"
    await engine.close()


async def test_what_the_model_says_about_itself_is_recorded(llama: LlamaCppEngine) -> None:
    info = llama.info
    assert info is not None
    assert info.quantisation == "Q4_1"
    assert info.parameters == 134_515_008
    assert info.n_ctx_train == 8192
    assert "llama-cpp-python 0.3.36" in info.engine_build
    assert info.score_contexts * info.score_threads <= info.generate_threads


async def test_a_grammar_is_read_beside_the_event_loop(
    llama: LlamaCppEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []
    make = TokenSampler.__init__

    def note(sampler: TokenSampler, *arguments: Any) -> None:
        threads.append(threading.current_thread().name)
        make(sampler, *arguments)

    monkeypatch.setattr(TokenSampler, "__init__", note)
    for grammar in ("", 'root ::= "yes"'):
        await _collect(llama, "Hello", SamplingParameters(max_tokens=1, grammar=grammar))
    here = threading.current_thread().name
    assert [thread == here for thread in threads] == [True, False]


async def test_a_long_text_is_tokenised_beside_the_event_loop_and_before_the_model_goes(
    smollm2_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = LlamaCppEngine()
    await engine.load(smollm2_path, "digest")
    begun, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    encode = Tokeniser.encode
    done: list[int] = []

    def slow(tokeniser: Tokeniser, text: str) -> tuple[int, ...]:
        loop.call_soon_threadsafe(begun.set)
        assert go_on.wait(100)
        tokens = encode(tokeniser, text)
        done.append(len(tokens))
        return tokens

    monkeypatch.setattr(Tokeniser, "encode", slow)
    stream = engine.generate("word " * 10_000, SamplingParameters())
    first = asyncio.ensure_future(anext(aiter(stream)))
    await begun.wait()
    unloading = asyncio.create_task(engine.unload())
    first.cancel()
    await asyncio.wait([first])
    assert first.cancelled()
    go_on.set()
    await unloading
    assert done
    await engine.close()


async def test_unloading_ends_a_conversation_that_is_being_rendered(
    with_template: Callable[[str], Path],
) -> None:
    loops = "{% for i in range(99999) %}" * 3 + "{% endfor %}" * 3
    engine = LlamaCppEngine()
    await engine.load(with_template(loops), "digest")
    stream = engine.generate((ChatMessage("user", "Hello"),), SamplingParameters())
    first = asyncio.ensure_future(anext(aiter(stream)))
    await asyncio.sleep(0)
    await engine.unload()
    with pytest.raises(NoModelLoadedError):
        await first
    await engine.close()
