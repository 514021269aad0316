"""What the audit compares: what this service has written about money, and its account."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from evalpool_benchmark.funding import FundingState
from evalpool_benchmark.payout import Contribution, PayoutLine
from evalpool_benchmark.pool import Phase


@dataclass(frozen=True, slots=True)
class Movement:
    """Units that came to this service or left it, as the ledger has it.

    Attributes:
        sequence: Its number on the ledger.
        transfer: The transfer's id.
        sender: Who paid; empty for minted units.
        recipient: Who got it; empty for burned units.
        quantity: Units.
        request_id: Under which id this service asked for it; empty where another did.
    """

    sequence: int
    transfer: str
    sender: str
    recipient: str
    quantity: int
    request_id: str


@dataclass(frozen=True, slots=True)
class Account:
    """This service's account on the ledger, read after the books.

    Attributes:
        address: Whose it is.
        balance: Units on it, held ones among them.
        movements: Everything that came and left, in order.
        known_up_to: The ledger's newest entry at a moment before the books were read. What left
            later may follow from plans that were made after they were.
    """

    address: str
    balance: int
    movements: tuple[Movement, ...]
    known_up_to: int


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided on a credit.

    Attributes:
        transfer: The credit's transfer.
        payer: Who paid; empty for minted units.
        quantity: Units.
        sequence: Its number on the ledger.
        state: What became of it.
        pool: The pool made or added to; empty where none.
        refund: The transfer that brought it back; empty until that is known.
    """

    transfer: str
    payer: str
    quantity: int
    sequence: int
    state: FundingState
    pool: str = ""
    refund: str = ""


@dataclass(frozen=True, slots=True)
class PoolStanding:
    """A pool's phase, and the units that it is said to have."""

    phase: Phase
    funds: int


@dataclass(frozen=True, slots=True)
class Books:
    """Everything that this service has written about money, at one moment.

    Attributes:
        decisions: On credits.
        pools: Pools by id.
        contributions: What was paid into each pool, by its id.
        plans: Payout plans by the pool's id.
    """

    decisions: tuple[Decision, ...]
    pools: Mapping[str, PoolStanding]
    contributions: Mapping[str, Sequence[Contribution]]
    plans: Mapping[str, Sequence[PayoutLine]]


class Check(StrEnum):
    """What is compared."""

    CONTRIBUTIONS = "contributions"
    REFUNDS = "refunds"
    PAYOUTS = "payouts"
    ACCOUNT = "account"


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that is not as it must be.

    Attributes:
        check: What was compared.
        subject: The pool, transfer or account.
        text: What the one says and what the other says.
    """

    check: Check
    subject: str
    text: str
