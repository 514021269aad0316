"""Whose turn it is, by the rule alone: without heaps, from what was asked and dispatched."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeAlias

from evalpool_router.scheduler import Dispatch, Kind

if TYPE_CHECKING:
    from tests.router.scheduler.herd_model import HerdModel

Lane: TypeAlias = tuple[str, Kind, bool]
"""A caller, and the work that they ask for."""


class Turns:
    """When callers had their turns, and when their requests came.

    Args:
        herd: Whose dispatches to judge.
    """

    def __init__(self, herd: HerdModel) -> None:
        self._herd = herd
        self._came: dict[int, float] = {}
        self._last: dict[Lane, float] = {}

    def came(self, request: int) -> None:
        """A request has been taken in."""
        self._came[request] = self._herd.now

    def had(self, dispatch: Dispatch) -> None:
        """A caller has had a turn."""
        self._last[self._lane(dispatch.request)] = self._herd.now

    def assert_fair(self, dispatch: Dispatch) -> None:
        """Nothing else that the same worker could take was to go before this.

        What a worker has given back goes before everything else. Then callers have their turns:
        having waited counts, and an offer counts as so much waiting. A caller's turn goes to the
        request that has waited longest, counted likewise.
        """
        if self._herd.sent_out[dispatch.request].intersection(dispatch.questions):
            return
        self._assert_nothing_given_back_waits(dispatch)
        self._assert_first_of_the_callers_own(dispatch)
        mine = self._lane(dispatch.request)
        others = {
            lane
            for request in self._herd.requests
            if (lane := self._lane(request)) != mine and lane[1:] == mine[1:]
        }
        earliest = self._earliest(mine)
        for other in others:
            waiting = [r for r in self._waiting(other) if self._could_go(r, dispatch)]
            if waiting and len(waiting) == len(self._waiting(other)):
                assert self._latest(other, waiting) >= earliest

    def _assert_nothing_given_back_waits(self, instead: Dispatch) -> None:
        herd = self._herd
        view = herd.scheduler.worker(instead.worker, herd.now)
        assert view is not None
        for request in herd.requests:
            if self._is_open(request) and herd.choices.has_room(view, request):
                for question in herd.sent_out[request].intersection(herd.waiting(request)):
                    assert herd.are_tries_used_up(request) or not herd.may_take(
                        instead.worker, request, [question]
                    )

    def _assert_first_of_the_callers_own(self, dispatch: Dispatch) -> None:
        worth = self._came[dispatch.request] - self._worth(dispatch.request)
        for other in self._waiting(self._lane(dispatch.request)):
            if self._could_go(other, dispatch):
                assert worth <= self._came[other] - self._worth(other)

    def _earliest(self, lane: Lane) -> float:
        """The least that a caller's place in the order can be."""
        requests = [r for r in self._herd.requests if self._lane(r) == lane]
        turn = self._last.get(lane, min(self._came[r] for r in requests))
        return turn - max(map(self._worth, [r for r in requests if self._is_waiting(r)]))

    def _latest(self, lane: Lane, waiting: list[int]) -> float:
        """The most that it can be."""
        turn = max(self._last.get(lane, 0.0), min(self._came[r] for r in waiting))
        return turn - min(map(self._worth, waiting))

    def _worth(self, request: int) -> float:
        """Seconds of waiting that an offer counts as; ten doublings at most count."""
        doublings = min(max(math.log2(self._herd.requests[request].multiplier), 0.0), 10.0)
        return self._herd.rules.ageing_seconds * doublings

    def _could_go(self, request: int, instead_of: Dispatch) -> bool:
        herd = self._herd
        return (
            herd.requests[request].model == herd.requests[instead_of.request].model
            and herd.may_take(instead_of.worker, request, herd.waiting(request))
            and not herd.are_tries_used_up(request)
        )

    def _waiting(self, lane: Lane) -> list[int]:
        return [r for r in self._herd.requests if self._lane(r) == lane and self._is_waiting(r)]

    def _is_waiting(self, request: int) -> bool:
        """Whether a part of it that nobody has had yet waits."""
        herd = self._herd
        return self._is_open(request) and bool(set(herd.waiting(request)) - herd.sent_out[request])

    def _is_open(self, request: int) -> bool:
        herd = self._herd
        return (
            request not in herd.ended
            and request not in herd.cancelled
            and herd.requests[request].deadline > herd.now
        )

    def _lane(self, request: int) -> Lane:
        asked = self._herd.requests[request]
        return asked.caller, asked.kind, asked.scoring
