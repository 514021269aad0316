"""Who asks for inference."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caller:
    """Who wants something done.

    Attributes:
        address: Who.
        trusted: Whether everybody's models may be run: the dataset service, and the operator.
        evaluates: Whether it is the dataset service, whose prompts are evaluations.
        remaining: Seconds until the call's own deadline; None without one.
    """

    address: str
    trusted: bool
    evaluates: bool
    remaining: float | None
