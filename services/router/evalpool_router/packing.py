"""The router's values as the contract's messages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction

from evalpool.inference.v1 import inference_pb2
from evalpool.router.v1 import router_pb2
from evalpool_router.models import Model
from evalpool_router.scheduler import ModelView, Scheduler, WorkerState, WorkerView
from evalpool_runtime.protobuf import duration, timestamp


def pack_multiplier(multiplier: Fraction) -> str:
    """A multiplier, which has at most nine decimals, as a decimal string."""
    return f"{(Decimal(multiplier.numerator) / multiplier.denominator).normalize():f}"


def pack_model(model: Model) -> router_pb2.Model:
    """A model."""
    return router_pb2.Model(
        digest=model.digest,
        name=model.name,
        source=model.source,
        owner=model.owner,
        size_bytes=model.size_bytes,
        license=model.license,
        context_length=model.context_length,
        quantisation=model.quantisation,
        create_time=None if model.create_time is None else timestamp(model.create_time),
    )


def pack_reference(model: Model) -> inference_pb2.ModelReference:
    """A model as callers name it."""
    return inference_pb2.ModelReference(digest=model.digest, name=model.name)


def pack_chat(response: inference_pb2.InferResponse) -> router_pb2.ChatResponse:
    """What comes of a prompt, as what comes of a question."""
    return router_pb2.ChatResponse(
        reference=response.reference,
        chunk=response.chunk if response.HasField("chunk") else None,
        complete=response.complete if response.HasField("complete") else None,
        progress=response.progress if response.HasField("progress") else None,
    )


def pack_worker(
    view: WorkerView,
    *,
    endpoint: str,
    memory_bytes: int,
    only_models: frozenset[str],
    lease_until: datetime,
) -> router_pb2.Worker:
    """A worker.

    Args:
        view: How it stands.
        endpoint: Where it is.
        memory_bytes: What it gives to models.
        only_models: Digests of the models that it takes, where it takes no others.
        lease_until: When its lease lapses.
    """
    return router_pb2.Worker(
        address=view.address,
        endpoint=endpoint,
        kinds=[router_pb2.WorkerKind.ValueType(kind) for kind in sorted(view.kinds)],
        slots=view.slots,
        busy_slots=view.busy_slots,
        outstanding_tokens=view.outstanding_tokens,
        models=sorted(view.models),
        generation=view.generation,
        draining=view.draining,
        lease_expire_time=timestamp(lease_until),
        memory_bytes=memory_bytes,
        completed=view.completed,
        failed=view.failed,
        free_slots=view.free_slots,
        running=view.running,
        state=_state(view.state),
        rest=duration(timedelta(seconds=view.resting_seconds)),
        failures_in_a_row=view.failures,
        completed_per_second=view.rates.units,
        tokens_per_second=view.rates.tokens,
        only_models=sorted(only_models),
    )


def pack_statistics(
    scheduler: Scheduler, workers: Sequence[router_pb2.Worker], now: float, *, details: bool
) -> router_pb2.GetStatisticsResponse:
    """The herd's figures.

    Args:
        scheduler: Knows them.
        workers: The workers, as they are listed.
        now: The scheduler's present second.
        details: Whether to tell them by model and worker too.
    """
    totals, rates = scheduler.totals(), scheduler.per_second(now)
    states = Counter(worker.state for worker in workers)
    response = router_pb2.GetStatisticsResponse(
        workers=len(workers),
        slots=sum(worker.slots for worker in workers),
        busy_slots=sum(worker.busy_slots for worker in workers),
        queued=totals.queued,
        running=totals.running,
        completed=totals.completed,
        failed=totals.failed,
        completed_per_second=rates.units,
        tokens_per_second=rates.tokens,
        free_slots=sum(worker.free_slots for worker in workers),
        resting_workers=states[_state(WorkerState.RESTING)],
        draining_workers=states[_state(WorkerState.DRAINING)],
        rate_window=duration(timedelta(seconds=scheduler.rate_window(now))),
    )
    if details:
        loaded = Counter(model for worker in workers for model in worker.models)
        response.worker_details.extend(workers)
        response.models.extend(
            _pack_model_statistics(view, loaded[view.digest]) for view in scheduler.models(now)
        )
    return response


def _pack_model_statistics(view: ModelView, workers: int) -> router_pb2.ModelStatistics:
    return router_pb2.ModelStatistics(
        digest=view.digest,
        queued=view.totals.queued,
        running=view.totals.running,
        completed=view.totals.completed,
        failed=view.totals.failed,
        completed_per_second=view.rates.units,
        tokens_per_second=view.rates.tokens,
        rest=duration(timedelta(seconds=view.resting_seconds)),
        workers=workers,
    )


def _state(state: WorkerState) -> router_pb2.WorkerState.ValueType:
    return router_pb2.WorkerState.ValueType(state)
