"""What the scheduler refuses and gives up, and in which words."""

from __future__ import annotations

from evalpool_runtime.errors import (
    Aborted,
    DeadlineExceeded,
    DomainError,
    FailedPrecondition,
    Internal,
    ResourceExhausted,
    Unavailable,
    reasons,
)

SHORTEST_DELAY = 1.0
LONGEST_DELAY = 60.0


def queue_full(queued: int, per_second: float, *, whole: bool) -> DomainError:
    """The queue, or the caller's part of it, has no room.

    Args:
        queued: Units that wait.
        per_second: Units finished a second of late.
        whole: Whether it is the whole queue.
    """
    # A tenth of the queue makes room enough for another try.
    delay = queued / 10 / per_second if per_second > 0 else LONGEST_DELAY
    delay = min(max(delay, SHORTEST_DELAY), LONGEST_DELAY)
    what = "the herd's queue is full" if whole else "your part of the herd's queue is full"
    return ResourceExhausted(
        reasons.ERROR_REASON_QUEUE_FULL,
        f"{what} ({queued} questions and requests wait); try again in {delay:.0f} s",
        retry_after=delay,
        queued=str(queued),
    )


def too_large(size: int, most: int, of: str, setting: str) -> DomainError:
    """The queue would have no room for a request even if nothing waited.

    Args:
        size: How much the request has.
        most: How much of one caller the queue holds.
        of: Of what.
        setting: The router's setting that bounds it.
    """
    return ResourceExhausted(
        reasons.ERROR_REASON_QUEUE_FULL,
        f"the request has {size} {of}, and the herd's queue holds {most} of one caller at most; "
        f"send fewer, or have {setting} of the router raised",
    )


def too_late(lack: str, trouble: DomainError | None) -> DomainError:
    """The request's deadline passed before it was done.

    Args:
        lack: What the herd lacks for it; empty where it was only busy.
        trouble: What a worker that failed it said.
    """
    why = lack or "the herd was too busy; give it more time or try again later"
    if trouble is not None:
        why += f" (of the workers that tried, one failed: {trouble.message})"
    message = f"the request's deadline passed: {why}"
    if lack:
        return FailedPrecondition(reasons.ERROR_REASON_NO_WORKER, message)
    return DeadlineExceeded(reasons.ERROR_REASON_DEADLINE_EXCEEDED, message)


def worker_lost() -> DomainError:
    """A worker was lost after it had begun to answer."""
    return Unavailable(
        reasons.ERROR_REASON_WORKER_LOST,
        "the worker was lost after it had begun to answer; send the request again",
        retry_after=SHORTEST_DELAY,
    )


def lost_too_often(times: int) -> DomainError:
    """Workers were lost again and again over one question or prompt."""
    return Unavailable(
        reasons.ERROR_REASON_WORKER_LOST,
        f"{times} workers were lost while they were at it, so it is given up; look into their logs",
        retry_after=LONGEST_DELAY,
    )


def brings_workers_down(rest: float) -> DomainError:
    """One worker after the other was lost while it was at a model.

    Args:
        rest: Seconds for which the model is not tried.
    """
    return Internal(
        reasons.ERROR_REASON_ENGINE_FAILED,
        "workers are lost one after the other while they are at this model, which answers nothing; "
        f"look into their logs, repair the model's file, or try again in {rest:.0f} s",
        retry_after=rest,
    )


def lease_lost(generation: int) -> DomainError:
    """A worker that has no lease, or a newer one, speaks."""
    return Aborted(
        reasons.ERROR_REASON_LEASE_LOST,
        f"generation: {generation} has no lease any more; register again",
        generation=str(generation),
    )


def superseded(generation: int) -> DomainError:
    """An earlier start of a worker wants the lease that a later one has.

    Args:
        generation: The later one's.
    """
    return Aborted(
        reasons.ERROR_REASON_LEASE_LOST,
        f"instance: a later start of this worker has the lease, under generation {generation}; "
        "stop one of the two, or give each a key of its own",
        generation=str(generation),
    )
