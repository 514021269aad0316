"""The audit: every balance computed again from the log, and compared."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from evalpool_token.entries import Account, Entry, EntryKind, Head, chain_problems

# What each kind does to the supply, in units of the entry's quantity.
_SUPPLY = {EntryKind.MINT: 1, EntryKind.BURN: -1}


def audit(entries: Iterable[Entry], accounts: Iterable[Account], head: Head) -> Iterator[str]:
    """Yield every difference between the log and what the accounts say, first ones first.

    Args:
        entries: All entries with their postings, in order.
        accounts: All accounts.
        head: The ledger's newest point.
    """
    log = list(entries)
    yield from chain_problems(log, head)
    balances: dict[str, int] = defaultdict(int)
    held: dict[str, int] = defaultdict(int)
    supply = 0
    for entry in log:
        created = _SUPPLY.get(entry.kind, 0) * entry.quantity
        supply += created
        moved = sum(posting.amount + posting.held_amount for posting in entry.postings)
        if moved != created:
            yield f"entry {entry.sequence} moves {moved} units and creates {created}"
        for posting in entry.postings:
            balances[posting.account] += posting.amount
            held[posting.account] += posting.held_amount
            computed = (balances[posting.account], held[posting.account])
            if computed != (posting.balance, posting.held):
                yield (
                    f"entry {entry.sequence} leaves {posting.account} with {computed}, and says "
                    f"{(posting.balance, posting.held)}"
                )
            if min(computed) < 0:
                yield f"entry {entry.sequence} leaves {posting.account} below zero"
    stored = {account.address: (account.balance, account.held) for account in accounts}
    for address in sorted(set(stored) | set(balances)):
        computed = (balances[address], held[address])
        if stored.get(address, (0, 0)) != computed:
            yield f"{address} has {stored.get(address, (0, 0))}, and the log says {computed}"
    if supply != head.supply:
        yield f"the supply is {head.supply}, and the log says {supply}"
    total = sum(balance + aside for balance, aside in stored.values())
    if total != head.supply:
        yield f"the accounts hold {total} together, and the supply is {head.supply}"
