"""Which workers are in the herd, by the rule alone: from their heartbeats and their work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evalpool_router.scheduler import Dispatch

if TYPE_CHECKING:
    from tests.router.scheduler.herd_model import HerdModel


class Leases:
    """When workers were heard of last, and when they last got on with their work.

    Args:
        herd: Whose workers they are.
    """

    def __init__(self, herd: HerdModel) -> None:
        self._herd = herd
        self._until: dict[str, float] = {}
        self._progress: dict[str, float] = {}
        self._tokens: dict[str, int] = {}

    @property
    def present(self) -> set[str]:
        """The workers that have a lease."""
        return set(self._until)

    def came(self, worker: str) -> None:
        """A worker has registered."""
        self._tokens[worker] = -1
        self.heard_of(worker)
        self.got_on(worker)

    def beat(self, worker: str, computed_tokens: int) -> None:
        """Its heart has beaten."""
        self.heard_of(worker)
        if computed_tokens != self._tokens[worker]:
            self._tokens[worker] = computed_tokens
            self.got_on(worker)

    def got_on(self, worker: str) -> None:
        """It has shown that it gets on with its work, or has got some after it had none."""
        self._progress[worker] = self._herd.now

    def went(self, worker: str) -> None:
        """It has said good-bye."""
        del self._until[worker]

    def pass_time(self) -> None:
        """Those that were not heard of for too long, or are busy and get nowhere, are lost."""
        herd = self._herd
        for worker in list(self._until):
            nowhere_for = herd.now - self._progress[worker]
            hung = nowhere_for >= herd.rules.hung_seconds and any(
                map(self._goes_on, herd.at(worker))
            )
            if hung or self._until[worker] <= herd.now:
                del self._until[worker]

    def _goes_on(self, dispatch: Dispatch) -> bool:
        """Whether a dispatch does not end now with its request; an answered one has no deadline."""
        request = dispatch.request
        return request in self._herd.ended or (
            self._herd.requests[request].deadline > self._herd.now
        )

    def heard_of(self, worker: str) -> None:
        """It has shown that it lives."""
        self._until[worker] = self._herd.now + self._herd.rules.lease_seconds
