"""The benchmark service's requests: their fields' rules, and what the domain is asked by them."""

from __future__ import annotations

from dataclasses import dataclass

from evalpool.benchmark.v1 import benchmark_pb2 as pb
from evalpool.values import (
    Fields,
    InvalidValue,
    parse_dataset_id,
    parse_digest,
    parse_integer,
    parse_request_id,
    parse_text,
    parse_transfer_id,
)
from evalpool_benchmark.admission import Join
from evalpool_benchmark.messages import pool_state
from evalpool_benchmark.pool import PoolState

MAX_PAGE = 1_000
DEFAULT_PAGE = 100
MAX_REASON = 500
_MAX_REVISION = 2**63 - 1


@dataclass(frozen=True, slots=True)
class PoolQuery:
    """Which pools to list.

    Attributes:
        size: Pools a page.
        dataset: Only pools on this dataset; empty for all.
        state: Only pools in this state; None for all.
    """

    size: int
    dataset: str
    state: PoolState | None


@dataclass(frozen=True, slots=True)
class Watched:
    """What to watch.

    Attributes:
        id: The entry's or the pool's id.
        after: The last revision seen; 0 for none.
    """

    id: str
    after: int


@dataclass(frozen=True, slots=True)
class Disqualification:
    """Which entry to exclude, and why."""

    entry: str
    reason: str


def parse_id(field: str, text: str) -> str:
    """Read the only field of a request, the id of a transfer, a pool or an entry.

    Raises:
        InvalidFields: It breaks its rule.
    """
    fields = Fields()
    parsed = fields.parse(field, parse_transfer_id, text)
    fields.check()
    return parsed


def parse_list_pools(request: pb.ListPoolsRequest) -> PoolQuery:
    """Read a ListPoolsRequest, apart from its page token.

    Raises:
        InvalidFields: With every violation.
    """
    fields = Fields()
    size = fields.attempt(
        "page_size",
        lambda: parse_integer(
            request.page_size, at_least=1, at_most=MAX_PAGE, default=DEFAULT_PAGE
        ),
    )
    if request.dataset:
        fields.parse("dataset", parse_dataset_id, request.dataset)
    state = fields.attempt("state", lambda: _state(request.state))
    fields.check()
    return PoolQuery(size, request.dataset, state)


def parse_join(request: pb.JoinPoolRequest, participant: str, *, is_operator: bool) -> Join:
    """Read a JoinPoolRequest.

    Raises:
        InvalidFields: With every violation.
    """
    fields = Fields()
    asked = Join(
        pool=fields.parse("pool", parse_transfer_id, request.pool),
        subject=fields.parse("subject", parse_digest, request.subject),
        participant=participant,
        request_id=fields.parse("request_id", parse_request_id, request.request_id),
        is_operator=is_operator,
    )
    fields.check()
    return asked


def parse_watch_entry(request: pb.WatchEntryRequest) -> Watched:
    """Read a WatchEntryRequest.

    Raises:
        InvalidFields: With every violation.
    """
    return _watched("id", request.id, request.after_revision)


def parse_watch_leaderboard(request: pb.WatchLeaderboardRequest) -> Watched:
    """Read a WatchLeaderboardRequest.

    Raises:
        InvalidFields: With every violation.
    """
    return _watched("pool", request.pool, request.after_revision)


def parse_disqualify(request: pb.DisqualifyEntryRequest) -> Disqualification:
    """Read a DisqualifyEntryRequest.

    Raises:
        InvalidFields: With every violation.
    """
    fields = Fields()
    entry = fields.parse("id", parse_transfer_id, request.id)
    reason = fields.attempt(
        "reason", lambda: parse_text(request.reason, at_least=1, at_most=MAX_REASON)
    )
    fields.check()
    return Disqualification(entry, reason)


def _watched(field: str, text: str, revision: int) -> Watched:
    fields = Fields()
    watched = fields.parse(field, parse_transfer_id, text)
    after = fields.attempt(
        "after_revision", lambda: parse_integer(revision, at_least=0, at_most=_MAX_REVISION)
    )
    fields.check()
    return Watched(watched, after)


def _state(number: pb.PoolState.ValueType) -> PoolState | None:
    try:
        return pool_state(number)
    except KeyError:
        raise InvalidValue(f"{number} is no state of a pool; leave it out for all") from None
