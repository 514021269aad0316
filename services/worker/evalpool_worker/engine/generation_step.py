"""One batch of the generating context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .generation_stream import GenerationStream


@dataclass(slots=True)
class GenerationStep:
    """The columns of one batch, and which stream each asked-for output belongs to.

    Attributes:
        tokens: To be computed.
        positions: Of each in its sequence.
        sequences: That each belongs to.
        wants_logits: Whether each is to have logits.
        streams: How many of the tokens are each stream's.
        outputs: Streams that get logits, with the place of their last token.
        prefilled: How many tokens are of prompts, or were computed before.
    """

    tokens: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    sequences: list[tuple[int, ...]] = field(default_factory=list)
    wants_logits: list[bool] = field(default_factory=list)
    streams: dict[GenerationStream, int] = field(default_factory=dict)
    outputs: list[tuple[GenerationStream, int]] = field(default_factory=list)
    prefilled: int = 0

    def add(self, stream: GenerationStream, tokens: Sequence[int], wants_last: bool) -> None:
        """Add a stream's next tokens, with logits for the last of them or for none."""
        for offset, token in enumerate(tokens):
            self.tokens.append(token)
            self.positions.append(stream.computed + offset)
            self.sequences.append((stream.sequence,))
            self.wants_logits.append(False)
        if wants_last:
            self.wants_logits[-1] = True
            self.outputs.append((stream, len(self.tokens) - 1))
        self.streams[stream] = len(tokens)
