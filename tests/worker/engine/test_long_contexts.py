"""Long contexts are made one after another where the memory does not suffice for all at once."""

from __future__ import annotations

import threading

import pytest

from evalpool_worker.engine.context import ContextShape, DecodeContext
from evalpool_worker.engine.errors import EngineError, TooLittleMemoryError
from evalpool_worker.engine.long_contexts import LongContexts
from evalpool_worker.engine.memory import context_bytes
from evalpool_worker.engine.model import LoadedModel

SHAPE = ContextShape(cells=64, batch_tokens=16, sequences=4, outputs=4, threads=1)


class Machine:
    """Memory for so many contexts, of those that a test counts."""

    def __init__(self, model: LoadedModel, most: int) -> None:
        self._bytes = context_bytes(model, SHAPE)
        self.most = most
        self.taken = 0
        self.asked = threading.Semaphore(0)

    def free(self) -> int:
        self.asked.release()
        return (self.most - self.taken) * self._bytes


def test_a_context_that_fits_is_made(model: LoadedModel) -> None:
    contexts = LongContexts(model, Machine(model, 1).free)
    with contexts.one(SHAPE) as context:
        assert context.shape == SHAPE


def test_one_that_never_fits_is_refused(model: LoadedModel) -> None:
    contexts = LongContexts(model, Machine(model, 0).free)
    with pytest.raises(TooLittleMemoryError, match="A context of 64 tokens takes"):
        contexts.make(SHAPE, wait=True)


def test_one_that_fits_when_another_is_gone_waits_for_that(model: LoadedModel) -> None:
    machine = Machine(model, 1)
    contexts = LongContexts(model, machine.free)
    first = contexts.make(SHAPE, wait=True)
    machine.taken = 1
    made: list[DecodeContext] = []
    waiting = threading.Thread(target=lambda: made.append(contexts.make(SHAPE, wait=True)))
    machine.asked.acquire()
    waiting.start()
    machine.asked.acquire()
    with pytest.raises(TooLittleMemoryError):
        contexts.make(SHAPE, wait=False)
    assert not made
    machine.taken = 0
    contexts.free(first)
    waiting.join()
    assert len(made) == 1
    contexts.free(made[0])


def test_waiting_ends_when_the_model_goes(model: LoadedModel) -> None:
    machine = Machine(model, 1)
    contexts = LongContexts(model, machine.free)
    first = contexts.make(SHAPE, wait=True)
    machine.taken = 1
    failures: list[EngineError] = []

    def wait() -> None:
        try:
            contexts.make(SHAPE, wait=True)
        except EngineError as error:
            failures.append(error)

    waiting = threading.Thread(target=wait)
    machine.asked.acquire()
    waiting.start()
    machine.asked.acquire()
    contexts.stop_waiting()
    waiting.join()
    assert [str(failure) for failure in failures] == ["The model is being unloaded."]
    contexts.free(first)
