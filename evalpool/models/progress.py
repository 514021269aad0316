"""How a long copy reports where it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

Progress: TypeAlias = Callable[[int, int | None], None]
"""Called with the bytes done so far and the total, None while it is not known. It may raise to
cancel; what it raises comes out of the function that called it."""


def no_progress(done: int, total: int | None) -> None:
    """Report nothing."""
