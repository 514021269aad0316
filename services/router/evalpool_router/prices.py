"""What inference costs, and which holds are good for it: pure rules, exact."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from fractions import Fraction

from evalpool_router.hold import HeldUnits


@dataclass(frozen=True, slots=True)
class Prices:
    """The fees.

    Attributes:
        base_fee: Units a request.
        token_fee: Units a token, of the prompt or generated.
    """

    base_fee: int
    token_fee: int

    @property
    def paid(self) -> bool:
        """Whether inference costs anything."""
        return self.base_fee > 0 or self.token_fee > 0

    def price(self, tokens: int, multiplier: Fraction) -> int:
        """Units for a request of so many tokens, rounded up to a whole unit."""
        return math.ceil((self.base_fee + tokens * self.token_fee) * multiplier)

    def charge(self, tokens: int, multiplier: Fraction, held: int) -> int:
        """Units to take of a hold for what was used: never more than is held."""
        return min(self.price(tokens, multiplier), held)


class Flaw(StrEnum):
    """What is wrong with a hold."""

    MISSING = "missing"
    UNKNOWN = "unknown"
    HOLDER = "holder"
    RECIPIENT = "recipient"
    SETTLED = "settled"
    EXPIRES = "expires"
    SMALL = "small"
    TAKEN = "taken"


@dataclass(frozen=True, slots=True)
class Objection:
    """Why a hold cannot pay for a request.

    Attributes:
        flaw: What is wrong.
        sentence: For the caller, with the remedy.
    """

    flaw: Flaw
    sentence: str


def objection(
    hold: HeldUnits, *, payer: str, router: str, price: int, until: datetime
) -> Objection | None:
    """Why a hold cannot pay for a request; None where it can.

    Args:
        hold: The hold, as the ledger tells it.
        payer: Who asks for inference.
        router: The router's address.
        price: Units that the request may cost at most.
        until: When it must still be open.
    """
    if hold.holder != payer:
        return Objection(Flaw.HOLDER, "it is another's; make one with your own key")
    if hold.recipient != router:
        return Objection(Flaw.RECIPIENT, f"it is for another recipient; make one for {router}")
    if not hold.is_open:
        return Objection(
            Flaw.SETTLED, "it has been captured, released, or has expired; make a new one"
        )
    if hold.expire_time < until:
        return Objection(
            Flaw.EXPIRES,
            f"it expires before {until.isoformat(timespec='seconds')}; make one that lasts longer",
        )
    if hold.quantity < price:
        return Objection(
            Flaw.SMALL, f"it has {hold.quantity} units and this may cost {price}; hold as many"
        )
    return None
