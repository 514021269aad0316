"""What streams begin with alike, such as a system prompt: computed for one, lent to the others.

A stream takes what another that is in a slot has computed, or waits for the step that computes it.
The prompt of the last stream that ended is kept for those to come, up to a whole number of chunks:
so a request that comes alone is computed in the same chunks whether or not one like it came before,
and gives the same text.
"""

from __future__ import annotations

from collections.abc import Sequence

from .context import ContextShape, DecodeContext
from .generation_stream import GenerationStream
from .shared_prefix import shared_length

# Fewer tokens are computed again: a batch has room for them.
_SHORTEST = 32


class StreamPrefixes:
    """Lends the beginnings of sequences to others on one context.

    Args:
        shape: The context's; its first spare sequence holds what is kept, if it has one.
    """

    def __init__(self, shape: ContextShape) -> None:
        self._keeper = shape.sequences if shape.spare_sequences else None
        self._chunk = shape.chunk_tokens or shape.batch_tokens
        self._kept: tuple[int, ...] = ()

    @property
    def kept_tokens(self) -> int:
        """Cells that are kept for streams to come."""
        return len(self._kept)

    def keep(self, context: DecodeContext, stream: GenerationStream) -> None:
        """Keep the prompt of a stream that ends, in the place of what was kept before."""
        prompt = min(stream.computed, stream.prompt_tokens)
        whole = prompt - prompt % self._chunk
        if whole == 0 or self._keeper is None:
            return
        context.forget(self._keeper)
        context.share(stream.sequence, self._keeper, whole)
        self._kept = tuple(stream.tokens[:whole])

    def forget(self, context: DecodeContext) -> None:
        """Free the cells that are kept."""
        if self._kept and self._keeper is not None:
            context.forget(self._keeper)
        self._kept = ()

    def lose(self) -> None:
        """Note that the context is gone, and what it kept with it."""
        self._kept = ()

    def lend(
        self, context: DecodeContext, stream: GenerationStream, active: Sequence[GenerationStream]
    ) -> bool:
        """Let a stream that has nothing computed begin with what others have.

        Returns:
            False where an earlier stream will have computed more of it soon: it is better to wait.
        """
        if stream.computed:
            return True
        # The last token is always computed: its logits are wanted.
        wanted = stream.tokens[:-1]
        lent, lender, coming = 0, -1, 0
        earlier = True
        for other in active:
            if other is stream:
                earlier = False
                continue
            same = shared_length(wanted, other.tokens)
            if min(same, other.computed) > lent:
                lent, lender = min(same, other.computed), other.sequence
            if earlier and other.prefilling:
                coming = max(coming, same)
        same = shared_length(wanted, self._kept)
        same -= same % self._chunk
        if same > lent and self._keeper is not None:
            lent, lender = same, self._keeper
        if coming >= _SHORTEST and coming > lent:
            return False
        if lent >= _SHORTEST:
            context.share(lender, stream.sequence, lent)
            stream.computed = stream.shared = lent
        return True
