"""Holds on the ledger, in the terms of the router's domain."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class HeldUnits:
    """A hold.

    Attributes:
        id: Its id.
        holder: Whose units they are.
        recipient: Who may capture them.
        quantity: Units set aside.
        is_open: Whether they can be captured.
        expire_time: When it lapses, by the ledger's clock.
    """

    id: str
    holder: str
    recipient: str
    quantity: int
    is_open: bool
    expire_time: datetime


@dataclass(frozen=True, slots=True)
class Charge:
    """What is decided about a hold.

    Attributes:
        hold: The hold's id.
        quantity: Units to capture; the rest returns. 0: the hold is released.
    """

    hold: str
    quantity: int
