"""What all questions of a call begin with, such as instructions or solved examples."""

from __future__ import annotations

from collections.abc import Sequence

from .base import ChoiceQuestion
from .tokenisation import Tokeniser

# Fewer tokens are computed with each question: a batch has room for them.
_SHORTEST = 32


def shared_prefix(questions: Sequence[ChoiceQuestion], tokeniser: Tokeniser) -> tuple[int, ...]:
    """The tokens that the prompts begin with; none where they are few or there is one question.

    A prompt's own tokens may differ at the end of the text that all share, where its next
    characters join the last of it; so what two of them really begin with is taken.
    """
    if len(questions) < 2:
        return ()
    prompts = [prompt for question in questions for prompt, _ in question.pairs]
    # What the first and the last of them in their order share, all share.
    first = min(prompts)
    text = first[: shared_length(first, max(prompts))]
    # No token is shorter than a character, but for bytes of one, which are no prompt to begin with.
    if len(text) < _SHORTEST:
        return ()
    tokens = tokeniser.encode(text)
    for question in (questions[0], questions[-1]):
        pair = tokeniser.encode_pair(*question.pairs[0])
        own = pair.tokens[: pair.prompt_tokens - 1]
        tokens = tokens[: shared_length(tokens, own)]
    return tokens if len(tokens) >= _SHORTEST else ()


def shared_length(one: Sequence[object], other: Sequence[object]) -> int:
    """How many items both begin with."""
    count = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        count += 1
    return count
