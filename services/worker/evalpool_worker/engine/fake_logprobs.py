"""The fake engine's distribution: made up, and what was taken is always the likeliest."""

from __future__ import annotations

import math
from collections.abc import Iterable

from .base import TokenLogprob, TokenLogprobs


def fake_logprobs(token: bytes, others: Iterable[bytes], count: int) -> TokenLogprobs:
    """The token with probability 1/2, and others with 1/4, 1/8 and so on.

    Args:
        token: The token that was taken.
        others: Tokens to name beside it; enough of them that differ from it and each other.
        count: How many of the likeliest to name.
    """
    ranked = list(dict.fromkeys([token, *others]))[:count]
    return TokenLogprobs(
        _told(token, 0), tuple(_told(each, place) for place, each in enumerate(ranked))
    )


def _told(token: bytes, place: int) -> TokenLogprob:
    return TokenLogprob(
        token_id=int.from_bytes(token, "big"),
        piece=token,
        text=token.decode("utf-8", errors="replace"),
        logprob=-(place + 1) * math.log(2),
    )
