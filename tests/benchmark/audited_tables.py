"""What ledger and benchmark service have written, as tables that a test changes by hand."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from evalpool_benchmark.audit import Audit, audit
from evalpool_benchmark.books import Account, Books, Decision, Movement, PoolStanding
from evalpool_benchmark.funding import FundingState
from evalpool_benchmark.payout import Contribution, PayoutLine
from evalpool_benchmark.pool import Phase

NOW = datetime(2026, 1, 1, tzinfo=UTC)
US = "benchmark"


@dataclass
class Tables:
    """Pools paid, returned and running; refunds sent and due; units minted; a credit to come.

    Attributes:
        movements: By their numbers on the ledger.
        decisions: By transfer.
        pools: By id.
        contributions: By transfer, with the pool.
        plans: By pool.
        balance: What the account has.
        known_up_to: The ledger's newest entry before the books.
    """

    movements: dict[int, Movement]
    decisions: dict[str, Decision]
    pools: dict[str, PoolStanding]
    contributions: dict[str, tuple[str, Contribution]]
    plans: dict[str, list[PayoutLine]]
    balance: int
    known_up_to: int

    def audit(self) -> Audit:
        return audit(
            Books(
                decisions=tuple(self.decisions.values()),
                pools=self.pools,
                contributions={
                    pool: [each for of, each in self.contributions.values() if of == pool]
                    for pool in {of for of, _ in self.contributions.values()}
                },
                plans=self.plans,
            ),
            Account(US, self.balance, tuple(self.movements.values()), self.known_up_to),
        )

    def found(self) -> list[str]:
        return [f"{d.check}: {d.subject}: {d.text}" for d in self.audit().differences]

    def credit(self, transfer: str, payer: str, quantity: int) -> None:
        """Units that came in."""
        number = len(self.movements) + 1
        self.movements[number] = Movement(number, transfer, payer, US, quantity, "")
        self.balance += quantity

    def payment(self, transfer: str, recipient: str, quantity: int, request: str) -> None:
        """Units that this service sent."""
        number = len(self.movements) + 1
        self.movements[number] = Movement(number, transfer, US, recipient, quantity, request)
        self.balance -= quantity

    def decide(self, transfer: str, state: FundingState, pool: str = "", refund: str = "") -> None:
        """What was decided on a credit, and the contribution that follows."""
        credit = next(m for m in self.movements.values() if m.transfer == transfer)
        self.decisions[transfer] = Decision(
            transfer, credit.sender, credit.quantity, credit.sequence, state, pool, refund
        )
        if pool:
            self.contributions[transfer] = (
                pool,
                Contribution(transfer, credit.sender, credit.quantity, NOW, credit.sequence),
            )

    def change_line(self, pool: str, line: int, **change: object) -> None:
        self.plans[pool][line] = replace(self.plans[pool][line], **change)  # type: ignore[arg-type]

    def change_movement(self, number: int, **change: object) -> None:
        self.movements[number] = replace(self.movements[number], **change)  # type: ignore[arg-type]

    def change_decision(self, transfer: str, **change: object) -> None:
        self.decisions[transfer] = replace(self.decisions[transfer], **change)  # type: ignore[arg-type]

    def change_contribution(self, transfer: str, **change: object) -> None:
        pool, contribution = self.contributions[transfer]
        self.contributions[transfer] = (pool, replace(contribution, **change))  # type: ignore[arg-type]


def sound_tables() -> Tables:
    """Tables that agree."""
    made = Tables({}, {}, {}, {}, {}, 0, 0)
    made.credit("paid", "alice", 100)
    made.credit("more", "bob", 50)
    made.credit("odd", "carol", 30)
    made.payment("back", "carol", 30, "refund:odd")
    made.credit("open", "dan", 70)
    made.payment("first", "winner", 90, "payout:paid")
    made.payment("second", "runner-up", 60, "payout:paid:1")
    made.credit("nobody", "eve", 20)
    made.payment("returned", "eve", 20, "payout:nobody")
    made.credit("gift", "", 5)
    made.credit("odd too", "frank", 11)
    made.credit("new", "gus", 7)
    made.decide("paid", FundingState.CREATED, "paid")
    made.decide("more", FundingState.ADDED, "paid")
    made.decide("odd", FundingState.REFUNDED, refund="back")
    made.decide("open", FundingState.CREATED, "open")
    made.decide("nobody", FundingState.CREATED, "nobody")
    made.decide("gift", FundingState.KEPT)
    made.decide("odd too", FundingState.REFUNDED)
    made.pools = {
        "paid": PoolStanding(Phase.PAID, 150),
        "open": PoolStanding(Phase.RUNNING, 70),
        "nobody": PoolStanding(Phase.RETURNED, 20),
    }
    made.plans = {
        "paid": [
            PayoutLine(0, "entry-1", 1, "winner", 90, "", "first", 0),
            PayoutLine(1, "entry-2", 2, "runner-up", 60, "", "second", 1),
        ],
        "nobody": [PayoutLine(0, "", 0, "eve", 20, "nobody", "returned", 0)],
    }
    made.known_up_to = len(made.movements)
    return made
