"""Contexts for what is longer than usual: made when it comes, freed after it, as memory allows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .context import ContextShape, DecodeContext
from .errors import EngineError, TooLittleMemoryError
from .memory import context_bytes
from .model import LoadedModel

_MEBIBYTE = 2**20


class LongContexts:
    """Makes long contexts of one model; used by several threads.

    Args:
        model: Must outlive the contexts.
        free_memory: Bytes that can be taken now.
    """

    def __init__(self, model: LoadedModel, free_memory: Callable[[], int]) -> None:
        self._model = model
        self._free_memory = free_memory
        self._condition = threading.Condition()
        self._in_use = 0
        self._stopping = False

    @contextmanager
    def one(self, shape: ContextShape) -> Iterator[DecodeContext]:
        """A context for the length of a block; waits while others are in use and leave no room.

        Raises:
            TooLittleMemoryError: There is no room for it even alone.
            EngineError: llama.cpp can't make it, or the model is being unloaded.
        """
        context = self.make(shape, wait=True)
        try:
            yield context
        finally:
            self.free(context)

    def make(self, shape: ContextShape, *, wait: bool) -> DecodeContext:
        """A context that the caller gives to `free` in the end.

        Args:
            shape: Its shape.
            wait: Wait for others that are in use and leave no room.

        Raises:
            TooLittleMemoryError: There is no room for it.
            EngineError: llama.cpp can't make it.
        """
        needed = context_bytes(self._model, shape)
        with self._condition:
            while needed > (free := self._free_memory()):
                if not (wait and self._in_use):
                    raise TooLittleMemoryError(
                        f"A context of {shape.cells} tokens takes {needed // _MEBIBYTE} MiB of "
                        f"memory, and this worker has {free // _MEBIBYTE} MiB left; one with more "
                        "may take it."
                    )
                if self._stopping:
                    raise EngineError("The model is being unloaded.")
                self._condition.wait()
            # Under the lock: llama.cpp clears the cache, and so takes the memory that was counted.
            context = DecodeContext(self._model, shape)
            self._in_use += 1
            return context

    def free(self, context: DecodeContext) -> None:
        """Free a context that was made here."""
        context.free()
        with self._condition:
            self._in_use -= 1
            self._condition.notify_all()

    def stop_waiting(self) -> None:
        """Let those that wait for others fail: the model is being unloaded."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
