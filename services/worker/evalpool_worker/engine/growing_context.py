"""One thread's context that grows with what it has to hold, and shrinks again."""

from __future__ import annotations

from .context import DecodeContext
from .long_contexts import LongContexts
from .model import LoadedModel
from .shape import GrowingShape


class GrowingContext:
    """The usual context, or a longer one for as long as one is needed.

    Args:
        model: Must outlive the context.
        shapes: Of the context.
        long_contexts: Where the longer ones come from.
    """

    def __init__(
        self, model: LoadedModel, shapes: GrowingShape, long_contexts: LongContexts
    ) -> None:
        self._model = model
        self._shapes = shapes
        self._long_contexts = long_contexts
        self._context: DecodeContext | None = None

    @property
    def cells(self) -> int:
        """Tokens that it holds now, or would."""
        # Read once: other threads ask too.
        context = self._context
        return (context.shape if context else self._shapes.usual).cells

    def holding(self, tokens: int) -> tuple[DecodeContext, bool]:
        """The context, long enough for so many tokens, and whether it is a new and empty one.

        Raises:
            TooLittleMemoryError: There is no memory for a longer one; the present one stays.
            EngineError: llama.cpp can't make it; likewise.
        """
        if self._context is not None and tokens <= self._context.shape.cells:
            return self._context, False
        shape = self._shapes.holding(tokens)
        if shape == self._shapes.usual:
            context = DecodeContext(self._model, shape)
        else:
            context = self._long_contexts.make(shape, wait=False)
        self.free()
        self._context = context
        return context, True

    def forget(self, sequence: int) -> None:
        """Free the cells of one sequence, where there is a context that has any."""
        if self._context is not None:
            self._context.forget(sequence)

    def shrink(self) -> None:
        """Free a longer context than the usual one."""
        if self._context is not None and self._context.shape != self._shapes.usual:
            self.free()

    def free(self) -> None:
        """Free the context; the next use makes another."""
        context, self._context = self._context, None
        if context is None:
            return
        if context.shape == self._shapes.usual:
            context.free()
        else:
            self._long_contexts.free(context)
