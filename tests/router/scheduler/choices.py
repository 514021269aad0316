"""Which worker is to get work, by the rule alone: without heaps, from what is where."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from evalpool_router.scheduler import Dispatch, WorkerView

if TYPE_CHECKING:
    from tests.router.scheduler.herd_model import HerdModel


class Choices:
    """Who has room, how much workers have to do, and since when they had nothing more.

    Args:
        herd: Whose dispatches to judge.
    """

    def __init__(self, herd: HerdModel) -> None:
        self._herd = herd
        self._idle: dict[str, int] = {}
        self._moments = itertools.count(1)

    def let_go(self, worker: str) -> None:
        """A worker has come, or a dispatch has ended there."""
        self._idle[worker] = next(self._moments)

    def assert_best(self, dispatch: Dispatch) -> None:
        """No other worker that could take it was to have it.

        The one with the fewest outstanding tokens, then one that has the model loaded, then the one
        that has been idle longest.
        """
        herd, model = self._herd, self._herd.requests[dispatch.request].model
        able = {
            view.address: (
                self._outstanding(view.address),
                model not in view.models,
                self._idle[view.address],
            )
            for view in herd.scheduler.workers(herd.now)
            if self.has_room(view, dispatch.request)
            and herd.may_take(view.address, dispatch.request, dispatch.questions)
        }
        assert dispatch.worker in able
        assert able[dispatch.worker] == min(able.values())

    def has_room(self, view: WorkerView, request: int) -> bool:
        """Whether a worker can take more work of the kind that a request is, now."""
        herd, asked = self._herd, self._herd.requests[request]
        here = herd.at(view.address)
        packages = sum(herd.requests[dispatch.request].scoring for dispatch in here)
        return (
            asked.kind in view.kinds
            and not view.draining
            and not view.resting_seconds
            and len(here) < view.slots
            and not (asked.scoring and packages == herd.rules.packages_per_worker)
        )

    def _outstanding(self, address: str) -> int:
        herd = self._herd
        return sum(
            herd.requests[dispatch.request].tokens[question]
            for dispatch in herd.at(address)
            for question in herd.outstanding(dispatch)
        )
