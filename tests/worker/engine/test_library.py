"""What llama.cpp leaves behind in the process."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from evalpool_worker.engine.base import ChoiceQuestion, SamplingParameters
from evalpool_worker.engine.context import DecodeContext
from evalpool_worker.engine.llama_cpp import LlamaCppEngine
from evalpool_worker.engine.shape import EngineSettings
from tests.waiting import until


def _others_threads() -> set[int]:
    """Threads of this process that Python has not started."""
    own = {thread.native_id for thread in threading.enumerate()}
    return {int(task.name) for task in Path("/proc/self/task").iterdir()} - own


@pytest.mark.parametrize("work", ["generate", "score"])
async def test_an_idle_model_keeps_no_threads_for_computing(
    smollm2_path: Path, monkeypatch: pytest.MonkeyPatch, work: str
) -> None:
    decode, seen = DecodeContext.decode, list[set[int]]()

    def observed(context: DecodeContext) -> None:
        decode(context)
        seen.append(_others_threads())

    monkeypatch.setattr(DecodeContext, "decode", observed)
    engine = LlamaCppEngine(EngineSettings(threads=2, score_contexts=1))
    await engine.load(smollm2_path, "0" * 64)
    before = _others_threads()
    if work == "generate":
        async for _ in engine.generate("One, two,", SamplingParameters(max_tokens=4)):
            pass
    else:
        async for _ in engine.score((ChoiceQuestion("one", "He said", (" yes", " no")),)):
            pass
    assert any(threads - before for threads in seen), "two threads computed"

    async def left() -> set[int]:
        return _others_threads() - before

    await until(left, lambda threads: not threads)
    await engine.close()
