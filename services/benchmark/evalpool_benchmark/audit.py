"""The audit: what this service decided, planned and sent, compared with the ledger both ways.

Nothing in the tables is taken on trust but the wish: who was to get what. That it came in, that it
went out, once and to whom, is what the ledger says.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from evalpool_benchmark.books import Account, Books, Check, Decision, Difference, Movement
from evalpool_benchmark.funding import FundingState
from evalpool_benchmark.payout import (
    Contribution,
    PayoutLine,
    payout_request,
    refund_request,
    returns_contributions,
)
from evalpool_benchmark.pool import Phase

_IN_POOL = (FundingState.CREATED, FundingState.ADDED)


@dataclass(frozen=True, slots=True)
class Audit:
    """What was found.

    Attributes:
        differences: All of them, in the order of the checks.
        pools: Pools.
        credits: Credits on the ledger.
        contributions: Contributions to pools.
        pending: Credits that are not decided yet.
        pending_units: Their units.
        refunds: Refunds that are decided.
        refunds_due: Those of them that are not sent yet.
        payouts: Lines of all plans.
        payouts_due: Those of them that are not sent yet.
        balance: Units on the account.
        owed: Units that must be on it.
        later: Movements that left after the books were read, and are not compared.
    """

    differences: tuple[Difference, ...]
    pools: int
    credits: int
    contributions: int
    pending: int
    pending_units: int
    refunds: int
    refunds_due: int
    payouts: int
    payouts_due: int
    balance: int
    owed: int
    later: int


def audit(books: Books, account: Account) -> Audit:
    """Compare the books with the ledger."""
    comparison = _Comparison(books, account)
    differences = tuple(comparison.run())
    return comparison.result(differences)


class _Comparison:
    def __init__(self, books: Books, account: Account) -> None:
        self._books = books
        self._account = account
        self._credits = {
            each.transfer: each for each in account.movements if each.recipient == account.address
        }
        self._sent: dict[str, list[Movement]] = defaultdict(list)
        for each in account.movements:
            if each.sender == account.address:
                self._sent[each.request_id].append(each)
        self._decisions = {each.transfer: each for each in books.decisions}
        self._pools_of: dict[str, list[str]] = defaultdict(list)
        for pool, contributions in books.contributions.items():
            for each_of_pool in contributions:
                self._pools_of[each_of_pool.transfer].append(pool)
        self._refunds_due: list[int] = []
        self._payouts_due: list[int] = []
        self._later: list[Movement] = []
        self._pending = [
            each.quantity
            for each in self._credits.values()
            if each.transfer not in self._decisions and each.transfer not in self._pools_of
        ]

    def run(self) -> Iterator[Difference]:
        for decision in self._books.decisions:
            yield from self._decision(decision)
        for pool in sorted({*self._books.pools, *self._books.contributions}):
            yield from self._contributions(pool)
        for decision in self._books.decisions:
            if decision.state is FundingState.REFUNDED:
                yield from self._refund(decision)
            elif decision.refund:
                yield Difference(
                    Check.REFUNDS,
                    f"transfer {decision.transfer}",
                    f"it is {decision.state.value}, and {decision.refund} is said to have refunded "
                    "it",
                )
        for pool in sorted({*self._books.pools, *self._books.plans}):
            yield from self._plan(pool)
        yield from self._unplanned()
        if self._account.balance != self._owed:
            yield Difference(
                Check.ACCOUNT,
                f"account {self._account.address}",
                f"the ledger says that it has {self._account.balance:,}, and "
                f"{self._owed:,} is owed",
            )

    def result(self, differences: tuple[Difference, ...]) -> Audit:
        return Audit(
            differences=differences,
            pools=len(self._books.pools),
            credits=len(self._credits),
            contributions=sum(len(each) for each in self._books.contributions.values()),
            pending=len(self._pending),
            pending_units=sum(self._pending),
            refunds=sum(d.state is FundingState.REFUNDED for d in self._books.decisions),
            refunds_due=len(self._refunds_due),
            payouts=sum(len(plan) for plan in self._books.plans.values()),
            payouts_due=len(self._payouts_due),
            balance=self._account.balance,
            owed=self._owed,
            later=len(self._later),
        )

    @property
    def _owed(self) -> int:
        """What must be on the account: funds of running pools, and what is still to be sent."""
        running = sum(
            each.quantity
            for pool, contributions in self._books.contributions.items()
            if self._phase(pool) is Phase.RUNNING
            for each in contributions
        )
        kept = sum(d.quantity for d in self._books.decisions if d.state is FundingState.KEPT)
        due = sum(self._refunds_due) + sum(self._payouts_due)
        later = sum(each.quantity for each in self._later)
        return running + kept + due + sum(self._pending) - later

    def _phase(self, pool: str) -> Phase:
        standing = self._books.pools.get(pool)
        return Phase.RUNNING if standing is None else standing.phase

    def _decision(self, decision: Decision) -> Iterator[Difference]:
        subject = f"transfer {decision.transfer}"
        yield from self._credit(decision, subject, "the decision")
        pools = self._pools_of[decision.transfer]
        right = [decision.pool] if decision.state in _IN_POOL else []
        if pools != right:
            yield Difference(
                Check.CONTRIBUTIONS,
                subject,
                f"the decision is {decision.state.value} and the pool {_names(right)}, and it is a "
                f"contribution to {_names(pools)}",
            )
        if (decision.state is FundingState.CREATED) != (decision.pool == decision.transfer):
            yield Difference(
                Check.CONTRIBUTIONS,
                subject,
                f"the decision is {decision.state.value} and the pool {_names(right)}, and a pool "
                "has the id of the transfer that made it",
            )
        if decision.state not in _IN_POOL and bool(decision.payer) != (
            decision.state is FundingState.REFUNDED
        ):
            yield Difference(
                Check.CONTRIBUTIONS,
                subject,
                f"it is {decision.state.value}, and its payer is {decision.payer or 'nobody'}",
            )

    def _credit(
        self, said: Decision | Contribution, subject: str, who: str
    ) -> Iterator[Difference]:
        """What is written of a credit beside the credit."""
        credit = self._credits.get(said.transfer)
        if credit is None:
            yield Difference(
                Check.CONTRIBUTIONS,
                subject,
                f"{who} says that {said.transfer} brought {_paid(said.quantity, said.payer)}, and "
                "the ledger has no such credit",
            )
        elif (credit.sender, credit.quantity, credit.sequence) != (
            said.payer,
            said.quantity,
            said.sequence,
        ):
            yield Difference(
                Check.CONTRIBUTIONS,
                subject,
                f"the ledger says {_paid(credit.quantity, credit.sender)} in entry "
                f"{credit.sequence}, and {who} of {said.transfer} says "
                f"{_paid(said.quantity, said.payer)} in entry {said.sequence}",
            )

    def _contributions(self, pool: str) -> Iterator[Difference]:
        subject = f"pool {pool}"
        contributions = self._books.contributions.get(pool, ())
        for each in contributions:
            yield from self._credit(each, subject, "the contribution")
            if each.transfer not in self._decisions:
                yield Difference(
                    Check.CONTRIBUTIONS,
                    subject,
                    f"{each.transfer} is a contribution, and nothing was decided on it",
                )
        standing = self._books.pools.get(pool)
        total = sum(each.quantity for each in contributions)
        if standing is None:
            yield Difference(
                Check.CONTRIBUTIONS, subject, f"{total:,} were contributed, and there is no pool"
            )
            return
        if standing.funds != total:
            yield Difference(
                Check.CONTRIBUTIONS,
                subject,
                f"its contributions are {total:,}, and its funds are said to be {standing.funds:,}",
            )
        made = self._decisions.get(pool)
        if made is None or made.state is not FundingState.CREATED:
            yield Difference(
                Check.CONTRIBUTIONS, subject, "it is there, and no transfer was decided to make it"
            )

    def _refund(self, decision: Decision) -> Iterator[Difference]:
        subject = f"transfer {decision.transfer}"
        request = refund_request(decision.transfer)
        sent = self._sent.pop(request, [])
        if not sent:
            self._refunds_due.append(decision.quantity)
            if decision.refund:
                yield Difference(
                    Check.REFUNDS,
                    subject,
                    f"{decision.refund} is said to have refunded it, and the ledger has nothing "
                    f"under {request}",
                )
        for movement in sent[:1]:
            yield from _compare(
                Check.REFUNDS, subject, "the refund", decision.quantity, decision.payer,
                decision.refund, movement,
            )  # fmt: skip
        for movement in sent[1:]:
            yield Difference(
                Check.REFUNDS, subject, f"the ledger refunds it again in entry {movement.sequence}"
            )

    def _plan(self, pool: str) -> Iterator[Difference]:
        subject = f"pool {pool}"
        lines = sorted(self._books.plans.get(pool, ()), key=lambda line: line.line)
        yield from self._planned(pool, lines)
        batches: dict[int | None, list[PayoutLine]] = defaultdict(list)
        for line in lines:
            batches[line.batch].append(line)
        for batch, together in batches.items():
            sent = [] if batch is None else self._sent.pop(payout_request(pool, batch), [])
            # A batch is all or nothing.
            if sent and len(sent) != len(together):
                yield Difference(
                    Check.PAYOUTS,
                    subject,
                    f"{payout_request(pool, batch or 0)} is {len(together)} lines of the plan, and "
                    f"the ledger has {len(sent)} transfers under it",
                )
            for line, movement in zip(together, sent, strict=False):
                yield from _compare(
                    Check.PAYOUTS, subject, f"line {line.line}", line.quantity, line.recipient,
                    line.transfer, movement,
                )  # fmt: skip
            for line in together[len(sent) :]:
                self._payouts_due.append(line.quantity)
                if line.transfer:
                    yield Difference(
                        Check.PAYOUTS,
                        subject,
                        f"{line.transfer} is said to have paid line {line.line}, "
                        f"{_sent(line.quantity, line.recipient)}, and the ledger has no such "
                        "payout",
                    )

    def _planned(self, pool: str, lines: Sequence[PayoutLine]) -> Iterator[Difference]:
        """The plan beside the pool: paid or returned, whole, and not twice."""
        subject = f"pool {pool}"
        standing = self._books.pools.get(pool)
        if standing is None:
            yield Difference(Check.PAYOUTS, subject, "it has a plan, and there is no pool")
            return
        phase = standing.phase
        if phase is Phase.RUNNING:
            if lines:
                yield Difference(Check.PAYOUTS, subject, "it has a plan, and is still running")
            return
        contributions = self._books.contributions.get(pool, ())
        funds = sum(each.quantity for each in contributions)
        planned = sum(line.quantity for line in lines)
        if planned != funds:
            yield Difference(
                Check.PAYOUTS,
                subject,
                f"its contributions are {funds:,}, and its plan is to pay {planned:,}",
            )
        returns = returns_contributions(lines)
        if returns:
            back = [(line.contribution, line.recipient, line.quantity) for line in lines]
            if sorted(back) != sorted((c.transfer, c.payer, c.quantity) for c in contributions):
                yield Difference(
                    Check.PAYOUTS,
                    subject,
                    "its plan returns contributions, and not each of them once to its payer",
                )
        if phase is Phase.PAYING:
            return
        if returns != (phase is Phase.RETURNED):
            kind = "returns contributions" if returns else "pays entries"
            yield Difference(Check.PAYOUTS, subject, f"it is {phase.value}, and its plan {kind}")
        for line in lines:
            if not line.transfer:
                yield Difference(
                    Check.PAYOUTS,
                    subject,
                    f"it is {phase.value}, and line {line.line}, "
                    f"{_sent(line.quantity, line.recipient)}, has no receipt",
                )

    def _unplanned(self) -> Iterator[Difference]:
        """What left the account and belongs to no decision and no plan."""
        left = [each for movements in self._sent.values() for each in movements]
        for movement in sorted(left, key=lambda each: each.sequence):
            if movement.sequence > self._account.known_up_to:
                self._later.append(movement)
                continue
            refund = movement.request_id.startswith(refund_request(""))
            yield Difference(
                Check.REFUNDS if refund else Check.PAYOUTS,
                f"transfer {movement.transfer}",
                f"in entry {movement.sequence} the ledger paid "
                f"{_sent(movement.quantity, movement.recipient)} under "
                f"{movement.request_id or 'no request of this service'}, and no such payment was "
                "decided",
            )


def _compare(
    check: Check,
    subject: str,
    what: str,
    quantity: int,
    recipient: str,
    receipt: str,
    movement: Movement,
) -> Iterator[Difference]:
    """A payment as it was decided beside the payment as it was made."""
    if (movement.quantity, movement.recipient) != (quantity, recipient):
        yield Difference(
            check,
            subject,
            f"in entry {movement.sequence} the ledger paid "
            f"{_sent(movement.quantity, movement.recipient)}, and {what} is "
            f"{_sent(quantity, recipient)}",
        )
    if receipt not in ("", movement.transfer):
        yield Difference(
            check,
            subject,
            f"on the ledger {what} was paid by {movement.transfer}, and its receipt is {receipt}",
        )


def _paid(quantity: int, payer: str) -> str:
    return f"{quantity:,} from {payer or 'nobody'}"


def _sent(quantity: int, recipient: str) -> str:
    return f"{quantity:,} to {recipient or 'nobody'}"


def _names(pools: Sequence[str]) -> str:
    return ", ".join(pools) or "none"
