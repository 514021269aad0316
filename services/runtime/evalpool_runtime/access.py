"""Who may call what: one table for all six services.

A method that is not in it is refused. The interceptor checks the class of caller; where a class
says OWNER (or HOLD_RECIPIENT), any signed caller passes the interceptor, and the domain compares
the caller with the thing's owner.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto


class Who(Enum):
    """A class of callers."""

    ANYONE = auto()
    """No token is asked for."""
    SIGNED = auto()
    """Any address that signs."""
    OWNER = auto()
    """The owner of the thing named; the domain checks which thing."""
    HOLD_RECIPIENT = auto()
    """The recipient of the hold named (after its expiry the holder); the domain checks."""
    OPERATOR = auto()
    """The service's operator."""
    BENCHMARK = auto()
    """The benchmark service."""
    DATASET = auto()
    """The dataset service."""
    ADMITTED_WORKER = auto()
    """A worker that the router's operator has admitted."""
    ADMITTED_ROUTER = auto()
    """A router that the worker's operator has admitted."""


CHECKED_BY_DOMAIN = frozenset({Who.SIGNED, Who.OWNER, Who.HOLD_RECIPIENT})
"""Classes that every signed caller passes here."""


def _methods(service: str, rules: Mapping[str, set[Who]]) -> dict[str, frozenset[Who]]:
    return {f"/{service}/{method}": frozenset(who) for method, who in rules.items()}


_OWNER_OR_BENCHMARK = {Who.OWNER, Who.BENCHMARK}
_ROUTER_OR_OPERATOR = {Who.ADMITTED_ROUTER, Who.OPERATOR}

ACCESS: Mapping[str, frozenset[Who]] = {
    **_methods("grpc.health.v1.Health", {m: {Who.ANYONE} for m in ("Check", "Watch", "List")}),
    **_methods("grpc.reflection.v1alpha.ServerReflection", {"ServerReflectionInfo": {Who.ANYONE}}),
    **_methods("grpc.reflection.v1.ServerReflection", {"ServerReflectionInfo": {Who.ANYONE}}),
    **_methods(
        "evalpool.token.v1.TokenService",
        {
            "GetInfo": {Who.ANYONE},
            "GetTotalSupply": {Who.ANYONE},
            "GetBalance": {Who.OWNER, Who.OPERATOR},
            "Transfer": {Who.SIGNED},
            "TransferBatch": {Who.SIGNED},
            "Mint": {Who.OPERATOR},
            "Burn": {Who.SIGNED},
            "GetTransfer": {Who.OWNER},
            "ListTransfers": {Who.OWNER},
            "WatchNotices": {Who.OWNER},
            "Hold": {Who.SIGNED},
            "CaptureHold": {Who.HOLD_RECIPIENT},
            "ReleaseHold": {Who.HOLD_RECIPIENT, Who.OWNER},
            "GetHold": {Who.HOLD_RECIPIENT, Who.OWNER},
        },
    ),
    **_methods(
        "evalpool.benchmark.v1.BenchmarkService",
        {
            "GetInfo": {Who.ANYONE},
            "GetFunding": {Who.SIGNED},
            "ListPools": {Who.SIGNED},
            "GetPool": {Who.SIGNED},
            "JoinPool": {Who.SIGNED},
            "GetEntry": {Who.SIGNED},
            "WatchEntry": {Who.SIGNED},
            "WithdrawEntry": {Who.OWNER},
            "DisqualifyEntry": {Who.OPERATOR},
            "UpdateLeaderboard": {Who.SIGNED},
            "GetLeaderboard": {Who.SIGNED},
            "WatchLeaderboard": {Who.SIGNED},
            "AllocateRewards": {Who.SIGNED},
        },
    ),
    **_methods(
        "evalpool.dataset.v1.DatasetService",
        {
            "GetInfo": {Who.ANYONE},
            "CreateDataset": {Who.SIGNED},
            "LoadData": {Who.OWNER},
            "GetDataset": {Who.SIGNED},
            "ListDatasets": {Who.SIGNED},
            "ListQuestions": {Who.OWNER},
            "GetModel": {Who.SIGNED},
            "ListModels": {Who.SIGNED},
            "GetSubject": _OWNER_OR_BENCHMARK,
            "Benchmark": _OWNER_OR_BENCHMARK,
            "Evaluate": _OWNER_OR_BENCHMARK,
            "GetScore": _OWNER_OR_BENCHMARK,
            "WatchScores": _OWNER_OR_BENCHMARK,
            "ListResults": {Who.OWNER},
        },
    ),
    **_methods(
        "evalpool.router.v1.RouterService",
        {
            "GetInfo": {Who.ANYONE},
            "GetPricing": {Who.ANYONE},
            "Infer": {Who.SIGNED},
            "ScoreChoices": {Who.DATASET},
            "Chat": {Who.SIGNED},
            "Evaluate": {Who.SIGNED},
            "UploadModel": {Who.SIGNED},
            "GetUpload": {Who.SIGNED},
            "DownloadModel": {Who.ADMITTED_WORKER, Who.OWNER},
            "GetModel": {Who.SIGNED},
            "ListModels": {Who.SIGNED},
            "ListWorkers": {Who.OPERATOR},
            "GetStatistics": {Who.SIGNED},
            "RegisterWorker": {Who.ADMITTED_WORKER},
            "Heartbeat": {Who.ADMITTED_WORKER},
            "UnregisterWorker": {Who.ADMITTED_WORKER},
            "DrainWorker": {Who.OPERATOR},
            "AdmitWorker": {Who.OPERATOR},
        },
    ),
    **_methods(
        "evalpool.worker.v1.WorkerService",
        {
            "GetInfo": {Who.ANYONE},
            "LoadModel": _ROUTER_OR_OPERATOR,
            "UnloadModel": _ROUTER_OR_OPERATOR,
            "ListModels": _ROUTER_OR_OPERATOR,
            "SetMaxTokens": _ROUTER_OR_OPERATOR,
            "SetSystemPrompt": _ROUTER_OR_OPERATOR,
            "Infer": _ROUTER_OR_OPERATOR,
            "ScoreChoices": _ROUTER_OR_OPERATOR,
        },
    ),
    **_methods(
        "evalpool.embedding.v1.EmbeddingService",
        {
            "GetInfo": {Who.ANYONE},
            "CreateDataset": {Who.SIGNED},
            "UploadDataset": {Who.SIGNED},
            "SearchPrompt": {Who.OWNER, Who.DATASET},
            "Embed": {Who.SIGNED},
            "GetDataset": {Who.OWNER, Who.DATASET},
            "ListDatasets": {Who.OWNER},
            "DeleteDataset": {Who.OWNER},
        },
    ),
}
