"""The audit: every balance and hold computed again from the log, and compared.

Nothing but the hash chain is taken on trust: what an entry does to accounts follows from the entry,
so postings, accounts, holds and supply that were changed to fit one another are found as well.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace

from evalpool_token.entries import (
    Account,
    ChainWalk,
    Entry,
    EntryKind,
    Head,
    Hold,
    HoldState,
    movements,
)
from evalpool_token.ledger import made_hold

# What each kind does to the supply, in units of the entry's quantity.
_SUPPLY = {EntryKind.MINT: 1, EntryKind.BURN: -1}
_SETTLED = {
    EntryKind.CAPTURE: HoldState.CAPTURED,
    EntryKind.RELEASE: HoldState.RELEASED,
    EntryKind.EXPIRE: HoldState.EXPIRED,
}


def audit(
    entries: Iterable[Entry], accounts: Iterable[Account], holds: Iterable[Hold], head: Head
) -> Iterator[str]:
    """Yield every difference between the log and what the tables say, first ones first.

    Args:
        entries: All entries with their postings, in order.
        accounts: All accounts.
        holds: All holds.
        head: The ledger's newest point.
    """
    walk = ChainWalk()
    replay = _Replay()
    for entry in entries:
        yield from walk.step(entry)
        yield from replay.step(entry)
    yield from walk.end(head)
    yield from replay.compare(list(accounts), list(holds), head.supply)


class _Replay:
    """Balances, holds and supply, computed from entries alone."""

    def __init__(self) -> None:
        self._balances: dict[str, int] = defaultdict(int)
        self._held: dict[str, int] = defaultdict(int)
        self._holds: dict[str, Hold] = {}
        self._supply = 0

    def step(self, entry: Entry) -> Iterator[str]:
        set_aside = 0
        if entry.kind is EntryKind.HOLD:
            self._holds[entry.id] = made_hold(entry)
        elif entry.kind in _SETTLED:
            hold = self._holds.get(entry.id)
            if hold is None or hold.state is not HoldState.OPEN:
                yield f"entry {entry.sequence} settles a hold that is not open"
                return
            set_aside = hold.quantity
            yield from self._settle(entry, hold)
        self._supply += _SUPPLY.get(entry.kind, 0) * entry.quantity
        expected = []
        for account, amount, held_amount in movements(entry, set_aside):
            self._balances[account] += amount
            self._held[account] += held_amount
            after = (self._balances[account], self._held[account])
            if min(after) < 0:
                yield f"entry {entry.sequence} leaves {account} below zero"
            expected.append((account, amount, held_amount, *after))
        found = [(p.account, p.amount, p.held_amount, p.balance, p.held) for p in entry.postings]
        if sorted(found) != sorted(expected):
            yield f"entry {entry.sequence} does not do what its postings say"

    def _settle(self, entry: Entry, hold: Hold) -> Iterator[str]:
        captured = entry.quantity if entry.kind is EntryKind.CAPTURE else 0
        parties = (entry.sender, entry.recipient) == (hold.holder, hold.recipient)
        if captured > hold.quantity or (not captured and entry.quantity != hold.quantity):
            yield f"entry {entry.sequence} takes another quantity than its hold has"
        if not parties:
            yield f"entry {entry.sequence} has other parties than its hold"
        self._holds[entry.id] = replace(hold, state=_SETTLED[entry.kind], captured=captured)

    def compare(self, accounts: list[Account], holds: list[Hold], supply: int) -> Iterator[str]:
        stored = {account.address: (account.balance, account.held) for account in accounts}
        for address in sorted(set(stored) | set(self._balances)):
            computed = (self._balances[address], self._held[address])
            if stored.get(address, (0, 0)) != computed:
                yield f"{address} has {stored.get(address, (0, 0))}, and the log says {computed}"
        kept = {hold.id: hold for hold in holds}
        for hold in sorted(set(kept) | set(self._holds)):
            if kept.get(hold) != self._holds.get(hold):
                yield f"the hold {hold} is not what the log says"
        if supply != self._supply:
            yield f"the supply is {supply}, and the log says {self._supply}"
        total = sum(balance + held for balance, held in stored.values())
        if total != supply:
            yield f"the accounts hold {total} together, and the supply is {supply}"
