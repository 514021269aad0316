"""What wakes this process's loops and watches after a commit."""

from __future__ import annotations

from dataclasses import dataclass

from evalpool_runtime.watch import Changes


@dataclass(frozen=True, slots=True)
class Wakes:
    """What wakes whom: counters that are moved after a commit.

    Attributes:
        pools: A pool, its contributions or its leaderboard has changed.
        entries: An entry has changed.
        joins: An entry waits to be submitted.
        refunds: A refund is due.
        ends: A pool may be closed or paid, or its end is new.
    """

    pools: Changes
    entries: Changes
    joins: Changes
    refunds: Changes
    ends: Changes

    @classmethod
    def make(cls) -> Wakes:
        """One of each."""
        return cls(Changes(), Changes(), Changes(), Changes(), Changes())

    def notify_all(self) -> None:
        """Wake everybody, such as at the stop."""
        for changes in (self.pools, self.entries, self.joins, self.refunds, self.ends):
            changes.notify()
