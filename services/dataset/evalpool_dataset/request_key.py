"""Request ids: a caller's names for calls, by which a repeat is told from another call."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RequestKey:
    """A call that its caller has named.

    Attributes:
        id: The caller's name for it.
        fingerprint: Hexadecimal SHA-256 of the call's content: what a repeat must match.
    """

    id: str
    fingerprint: str
