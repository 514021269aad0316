"""Who may enter what: joining, withdrawing and disqualifying."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy import Connection

from evalpool_benchmark.datasets import Datasets, SubjectInfo
from evalpool_benchmark.entry import (
    Entry,
    EntryState,
    disqualify,
    enter_again,
    entry_id,
    withdraw,
)
from evalpool_benchmark.peers import PeerRefused, PeerUnavailable
from evalpool_benchmark.pool import FROZEN, Pool, PoolState, SubjectKind
from evalpool_benchmark.store import entries, pools
from evalpool_benchmark.store.entries import JoinRequest
from evalpool_runtime.clock import Clock
from evalpool_runtime.database import Database
from evalpool_runtime.errors import (
    AlreadyExists,
    DomainError,
    FailedPrecondition,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
    reason_name,
    reasons,
)

DAY = timedelta(hours=24)

_NO_MODEL = reason_name(reasons.ERROR_REASON_MODEL_NOT_FOUND)
_NO_DOCUMENT_SET = reason_name(reasons.ERROR_REASON_DOCUMENT_SET_NOT_FOUND)
_NOT_EMBEDDED = reason_name(reasons.ERROR_REASON_DOCUMENT_SET_NOT_READY)


@dataclass(frozen=True, slots=True)
class Join:
    """A join that is asked for.

    Attributes:
        pool: The pool's id.
        subject: The subject's digest.
        participant: Who asks.
        request_id: The participant's id of the request.
        is_operator: Whether the participant is this service's operator.
    """

    pool: str
    subject: str
    participant: str
    request_id: str
    is_operator: bool


class Admission:
    """Finds out what a join needs to know from others.

    Args:
        database: Where pools and entries are kept.
        datasets: The dataset service.
        clock: What time it is.
    """

    def __init__(self, database: Database, datasets: Datasets, clock: Clock) -> None:
        self._database = database
        self._datasets = datasets
        self._clock = clock

    async def subject(self, join: Join) -> SubjectInfo | None:
        """What is entered; None where the same request has been answered before.

        What the database alone can refuse is refused first, so that the dataset service is asked
        only about joins that it decides.

        Raises:
            DomainError: The join cannot be.
        """
        pool = await self._database.read(partial(check, asked=join, now=self._clock.now()))
        if pool is None:
            return None
        try:
            return await self._datasets.subject(pool.dataset, pool.dataset_version, join.subject)
        except PeerUnavailable as error:
            raise _cannot_be_asked() from error
        except PeerRefused as error:
            raise _refusal(join, error) or _cannot_be_asked() from error


def check(connection: Connection, asked: Join, now: datetime) -> Pool | None:
    """Refuse a join that cannot be, whatever its subject is.

    Returns:
        The pool; None where the same request has been answered before.
    """
    known = entries.join_request(connection, asked.participant, asked.request_id)
    if known is not None:
        _repeat(connection, asked, known)
        return None
    pool = pools.require(connection, asked.pool)
    _refuse_closed(pool, now)
    return pool


def join(connection: Connection, asked: Join, subject: SubjectInfo | None, now: datetime) -> Entry:
    """Enter a subject in a pool, under the pool's lock.

    Args:
        connection: The transaction.
        asked: The join.
        subject: What is entered; None where the same request has been answered before.
        now: The time.

    Returns:
        The entry; for a repeat of the same request the one that it made.

    Raises:
        DomainError: The join cannot be.
    """
    # Locked first, so that of two joins at once the second sees what the first has done.
    pool = pools.require(connection, asked.pool, lock=True)
    known = entries.join_request(connection, asked.participant, asked.request_id)
    if known is not None:
        return _repeat(connection, asked, known)
    if subject is None:
        raise AssertionError("a new join without its subject")
    _refuse_closed(pool, now)
    if subject.owner and subject.owner != asked.participant:
        raise _not_owned(pool)
    present = entries.lock(connection, entry_id(pool.id, asked.subject))
    if present is not None and not _may_enter_again(present, asked.participant):
        raise AlreadyExists(
            reasons.ERROR_REASON_ALREADY_ENTERED,
            "subject: it is entered in this pool already; enter another",
            subject=asked.subject,
        )
    _within_quota(connection, pool, asked.participant, now)
    order = entries.next_join_order(connection, pool.id)
    if present is None:
        entry = Entry(
            id=entry_id(pool.id, asked.subject),
            pool=pool.id,
            subject=asked.subject,
            subject_name=subject.name,
            participant=asked.participant,
            state=EntryState.SUBMITTED,
            join_time=now,
            join_order=order,
            prize_free=asked.is_operator or asked.participant == pool.dataset_owner,
            total=pool.question_count,
        )
    else:
        entry = enter_again(present, subject.name, order, now)
    entries.enter(connection, entry)
    made = JoinRequest(pool.id, asked.subject, entry.id)
    if not entries.remember_join(connection, asked.participant, asked.request_id, made):
        # The same id was used at the same moment in another pool, whose lock is another.
        raise _id_reused(asked)
    return entry


def take_out(connection: Connection, entry: str, participant: str, now: datetime) -> Entry:
    """Withdraw an entry for its participant, while its pool is open.

    Raises:
        DomainError: It cannot be withdrawn, by this caller or now.
    """
    pool, present = _lock(connection, entry)
    if present.participant != participant:
        raise PermissionDenied(
            reasons.ERROR_REASON_NOT_ALLOWED,
            "id: the entry is somebody else's; withdraw only your own",
        )
    if present.state is EntryState.WITHDRAWN:
        return present
    if pool.state(now) not in (PoolState.SCHEDULED, PoolState.OPEN):
        raise FailedPrecondition(
            reasons.ERROR_REASON_ENTRY_STATE,
            "id: its pool has ended, so entries stay as they are; withdraw while a pool is open",
            state=present.state.value,
        )
    if present.state is EntryState.DISQUALIFIED:
        raise FailedPrecondition(
            reasons.ERROR_REASON_ENTRY_STATE,
            "id: the entry is disqualified and stays so; its reason says why",
            state=present.state.value,
        )
    gone = withdraw(present, now)
    entries.save(connection, gone)
    return gone


def exclude(connection: Connection, entry: str, reason: str, now: datetime) -> Entry:
    """Disqualify an entry, until its pool's result is frozen.

    Raises:
        DomainError: There is no such entry, or it is too late.
    """
    pool, present = _lock(connection, entry)
    if pool.state(now) in FROZEN:
        raise FailedPrecondition(
            reasons.ERROR_REASON_ENTRY_STATE,
            "id: the pool's result is frozen, so its entries stay as they are; disqualify before",
            state=present.state.value,
        )
    if present.state is EntryState.DISQUALIFIED and present.reason == reason:
        return present
    excluded = disqualify(present, reason, now)
    entries.save(connection, excluded)
    return excluded


def _lock(connection: Connection, entry: str) -> tuple[Pool, Entry]:
    found = entries.require(connection, entry)
    # The pool first, always.
    pool = pools.require(connection, found.pool, lock=True)
    return pool, entries.require(connection, entry, lock=True)


def _repeat(connection: Connection, asked: Join, known: JoinRequest) -> Entry:
    if (known.pool, known.subject) != (asked.pool, asked.subject):
        raise _id_reused(asked)
    return entries.require(connection, known.entry)


def _id_reused(asked: Join) -> AlreadyExists:
    return AlreadyExists(
        reasons.ERROR_REASON_REQUEST_ID_REUSED,
        f'request_id: "{asked.request_id}" joined another pool or subject; choose a new one',
        request_id=asked.request_id,
    )


def _refuse_closed(pool: Pool, now: datetime) -> None:
    match pool.state(now):
        case PoolState.OPEN:
            return
        case PoolState.SCHEDULED:
            raise FailedPrecondition(
                reasons.ERROR_REASON_POOL_NOT_STARTED,
                f"pool: it starts at {pool.start_time:%Y-%m-%dT%H:%M:%SZ}; join it then",
                start_time=pool.start_time.isoformat(),
            )
        case _:
            raise FailedPrecondition(
                reasons.ERROR_REASON_POOL_CLOSED,
                f"pool: it ended at {pool.end_time:%Y-%m-%dT%H:%M:%SZ}; join one that is open",
                end_time=pool.end_time.isoformat(),
            )


def _refusal(asked: Join, refused: PeerRefused) -> DomainError | None:
    """What a participant learns of a subject that cannot be entered; None for other refusals."""
    if refused.reason_code == _NO_MODEL:
        return NotFound(
            reasons.ERROR_REASON_MODEL_NOT_FOUND,
            f'subject: the pool takes models, and none with the digest "{asked.subject}" is in the '
            "catalogue or the repository; upload it first, or correct the digest",
            subject=asked.subject,
        )
    if refused.reason_code == _NO_DOCUMENT_SET:
        return NotFound(
            reasons.ERROR_REASON_DOCUMENT_SET_NOT_FOUND,
            "subject: the pool takes document sets, and there is none with the digest "
            f'"{asked.subject}"; make it at the embedding service first, or correct the digest',
            subject=asked.subject,
        )
    if refused.reason_code == _NOT_EMBEDDED:
        return FailedPrecondition(
            reasons.ERROR_REASON_DOCUMENT_SET_NOT_READY,
            refused.reason,
            retry_after=refused.retry_after,
            subject=asked.subject,
        )
    return None


def _cannot_be_asked() -> Unavailable:
    return Unavailable(
        reasons.ERROR_REASON_UNAVAILABLE,
        "the dataset service cannot be asked for the subject now; join again",
        retry_after=1.0,
    )


def _not_owned(pool: Pool) -> PermissionDenied:
    match pool.subject_kind:
        case SubjectKind.MODEL:
            whose = (
                "it was uploaded by somebody else; enter one of your own, or one of the catalogue"
            )
        case SubjectKind.DOCUMENT_SET:
            whose = "somebody else made the document set first; enter one of your own"
    return PermissionDenied(reasons.ERROR_REASON_SUBJECT_NOT_OWNED, f"subject: {whose}")


def _may_enter_again(present: Entry, participant: str) -> bool:
    return present.participant == participant and present.state in (
        EntryState.FAILED,
        EntryState.WITHDRAWN,
    )


def _within_quota(connection: Connection, pool: Pool, participant: str, now: datetime) -> None:
    if not pool.max_entries_per_day:
        return
    made = entries.attempts_since(connection, pool.id, participant, now - DAY)
    if len(made) >= pool.max_entries_per_day:
        # A place is free again once the oldest of those that fill the day is a day old.
        free = made[-pool.max_entries_per_day] + DAY
        raise ResourceExhausted(
            reasons.ERROR_REASON_ENTRY_LIMIT,
            f"pool: it takes {pool.max_entries_per_day} entries a participant in 24 hours; join "
            f"again at {free:%Y-%m-%dT%H:%M:%SZ}",
            retry_after=max((free - now).total_seconds(), 0.0),
            limit=str(pool.max_entries_per_day),
        )
