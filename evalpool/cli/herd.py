"""How the herd stands, as tables."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration

from evalpool.cli.output import enum_text, print_fields, print_table, short
from evalpool.models import catalogue
from evalpool.router.v1 import router_pb2


def print_herd(found: router_pb2.GetStatisticsResponse) -> None:
    """Print what waits, what runs and how fast it gets done: in all, by model and by worker.

    Args:
        found: The statistics; without models and workers unless the operator asked.
    """
    ready = found.workers - found.resting_workers - found.draining_workers
    window = found.rate_window.ToTimedelta().total_seconds()
    print_fields(
        {
            "workers": f"{ready} ready, {found.resting_workers} resting, "
            f"{found.draining_workers} draining",
            "slots": f"{found.busy_slots} busy of {found.slots}, {found.free_slots} free",
            "queued": found.queued,
            "running": found.running,
            "completed": found.completed,
            "failed": found.failed,
            "rate": f"{found.completed_per_second:.1f} completed and "
            f"{found.tokens_per_second:.0f} tokens a second, over {window:.0f} s",
        }
    )
    names = {model.sha256: model.name for model in catalogue() if model.sha256}
    if found.models:
        _print_models(found, names)
    if found.worker_details:
        _print_workers(found, names)


def _print_models(found: router_pb2.GetStatisticsResponse, names: dict[str, str]) -> None:
    print_table(
        [
            "model",
            ">queued",
            ">running",
            ">done",
            ">failed",
            ">done/s",
            ">tokens/s",
            ">loaded at",
            "",
        ],
        [
            (
                names.get(model.digest, short(model.digest)),
                model.queued,
                model.running,
                model.completed,
                model.failed,
                f"{model.completed_per_second:.1f}",
                f"{model.tokens_per_second:.0f}",
                model.workers,
                _resting(model.rest),
            )
            for model in found.models
        ],
    )


def _print_workers(found: router_pb2.GetStatisticsResponse, names: dict[str, str]) -> None:
    print_table(
        [
            "worker",
            "endpoint",
            "state",
            ">busy",
            ">free",
            ">running",
            ">done",
            ">failed",
            ">done/s",
            ">tokens/s",
            "models",
        ],
        [
            (
                short(worker.address),
                worker.endpoint,
                _resting(worker.rest)
                if worker.state == router_pb2.WORKER_STATE_RESTING
                else enum_text(router_pb2.WorkerState.Name(worker.state), "WORKER_STATE_"),
                f"{worker.busy_slots} of {worker.slots}",
                worker.free_slots,
                worker.running,
                worker.completed,
                worker.failed,
                f"{worker.completed_per_second:.1f}",
                f"{worker.tokens_per_second:.0f}",
                ", ".join(names.get(digest, short(digest)) for digest in worker.models),
            )
            for worker in found.worker_details
        ],
    )


def _resting(rest: Duration) -> str:
    seconds = rest.ToTimedelta().total_seconds()
    return f"resting {seconds:.1f} s" if seconds else ""
