"""How a request stands, in words for the caller who waits."""

from __future__ import annotations

from evalpool_router.scheduler.pool import Pool
from evalpool_router.scheduler.ticket import Ticket
from evalpool_router.scheduler.work import Request


def stage(ticket: Ticket, pool: Pool) -> str:
    """What a request is at, in a phrase."""
    if ticket.dispatches:
        return "at work"
    missing = lack(ticket.request, pool)
    return f"waiting for a worker: {missing}" if missing else "waiting in the queue"


def lack(request: Request, pool: Pool) -> str:
    """What no worker of the herd has that a request needs, and the remedy; empty for nothing."""
    kind = request.kind.name.lower()
    if not pool.any_takes(request.kind):
        if pool.any_drained(request.kind):
            return (
                f"every worker of the herd that takes work of the kind {kind} drains; let one take "
                "work again (DrainWorker), or start one"
            )
        return f"no worker of the herd takes work of the kind {kind}; start one"
    asked = request.kind, request.model, request.model_bytes
    if pool.able(*asked):
        return ""
    if pool.any_drained_takes(*asked):
        return (
            f"every worker of the herd that takes this model for work of the kind {kind} drains; "
            "let one take work again (DrainWorker), or start one"
        )
    largest = pool.largest_memory(request.kind)
    if not largest:
        return (
            "no worker of the herd takes this model: those that take work of the kind "
            f"{kind} serve other models alone; start one"
        )
    return (
        f"the model has {request.model_bytes} bytes, and the largest worker for work of the kind "
        f"{kind} that takes any model gives models {largest}; start one with more memory"
    )
