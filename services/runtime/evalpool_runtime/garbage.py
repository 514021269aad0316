"""How often Python looks for garbage that refers to itself."""

from __future__ import annotations

import gc

# New objects until the youngest are looked at; Python's own number is passed every few calls.
_YOUNGEST = 10_000


def collect_seldom() -> None:
    """Leave out what is there once a service has started, and look at the rest less often.

    What a service imports and keeps is never garbage, and going through it takes longer than a
    call; vLLM and others freeze it likewise.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNGEST, *gc.get_threshold()[1:])
