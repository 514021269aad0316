"""How many questions go out together."""

from __future__ import annotations

from evalpool_router.scheduler.rules import Rules
from evalpool_router.scheduler.ticket import Portion


def package_size(waiting: int, workers: int, rules: Rules) -> int:
    """Questions for the next package.

    A package is an equal share of what waits, over all packages that the herd has at once: so a
    long run goes out in the largest ones, and towards its end they get smaller and the workers
    finish together (guided self-scheduling: Polychronopoulos and Kuck, 1987).

    Args:
        waiting: Questions of the run that wait, at least 1.
        workers: Workers that share them.
        rules: The bounds.
    """
    share = -(-waiting // max(workers * rules.packages_per_worker, 1))
    size = min(max(share, rules.smallest_package), rules.largest_package, waiting)
    # What would be left is too little to fill a worker's batches.
    if waiting - size < rules.smallest_package and waiting <= rules.largest_package:
        return waiting
    return size


def take_package(portion: Portion, workers: int, rules: Rules) -> tuple[int, ...]:
    """Take the next package out of a portion, filled up with what its request has pending."""
    ticket = portion.ticket
    size = package_size(ticket.waiting, workers, rules)
    taken: list[int] = []
    tokens = 0
    for units in (portion.units, ticket.pending.units):
        while units and len(taken) < size:
            tokens += ticket.request.tokens[units[0]]
            if taken and tokens > rules.package_tokens:
                return tuple(taken)
            taken.append(units.popleft())
    return tuple(taken)
