"""Loading, unloading and failures of llama.cpp, which only a real model shows."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from itertools import pairwise
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
from evalpool_worker.engine.context import (
    DecodeContext,
)
from evalpool_worker.engine.errors import EngineError, ModelLoadError, NoModelLoadedError
from evalpool_worker.engine.llama_cpp import LlamaCppEngine
from evalpool_worker.engine.sampling import TokenSampler
from evalpool_worker.engine.tokenisation import Tokeniser
from tests.worker.engine.calls import (
    PACKING_NOISE,
    collect,
)


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


async def test_progress_is_told_by_the_percent_and_not_by_the_tensor(smollm2_path: Path) -> None:
    engine = LlamaCppEngine()
    shares: list[float] = []
    try:
        await engine.load(smollm2_path, "digest", shares.append)
        await asyncio.sleep(0)
    finally:
        await engine.close()
    *earlier, end = shares
    assert end == 1.0
    assert all(then - before >= 0.01 for before, then in pairwise(earlier))


async def test_what_the_model_says_about_itself_is_recorded(llama: LlamaCppEngine) -> None:
    info = llama.info
    assert info is not None
    assert info.quantisation == "Q4_1"
    assert info.parameters == 134_515_008
    assert info.n_ctx_train == 8192
    assert "llama-cpp-python 0.3.36" in info.engine_build
    assert info.score_contexts * info.score_threads <= info.generate_threads


async def test_the_log_probabilities_of_a_text_add_up_to_its_score(llama: LlamaCppEngine) -> None:
    parameters = SamplingParameters(max_tokens=8, temperature=0.0, logprobs=0)
    *chunks, _ = [event async for event in llama.generate("The capital of France", parameters)]
    pieces = [chunk for chunk in chunks if isinstance(chunk, GenerationChunk)]
    places = [place for chunk in pieces for place in chunk.logprobs]
    text = "".join(chunk.text for chunk in pieces)
    question = ChoiceQuestion("one", "The capital of France", (text,))
    [scored] = [outcome async for outcome in llama.score((question,))]
    assert isinstance(scored, QuestionResult)
    assert scored.scores[0].tokens == len(places) == 8
    total = sum(place.chosen.logprob for place in places)
    assert abs(total - scored.scores[0].sum_logprob) < PACKING_NOISE


async def test_a_control_token_among_the_likeliest_is_written_out(llama: LlamaCppEngine) -> None:
    asked = (ChatMessage("user", "Say yes."),)
    parameters = SamplingParameters(max_tokens=40, temperature=0.0, logprobs=20)
    events = [event async for event in llama.generate(asked, parameters)]
    control = {
        token.text
        for chunk in events
        if isinstance(chunk, GenerationChunk)
        for place in chunk.logprobs
        for token in place.likeliest
        if not token.piece
    }
    assert "<|im_end|>" in control


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
        await collect(llama, "Hello", SamplingParameters(max_tokens=1, grammar=grammar))
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
