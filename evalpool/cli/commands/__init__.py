"""The commands; importing this package registers them."""

from evalpool.cli.commands import (
    dataset,
    demo,
    deployment,
    documents,
    entries,
    inference,
    model,
    pool,
    pricing,
    runs,
    search,
    status,
    task,
    token,
    wallet,
)

__all__ = [
    "dataset",
    "demo",
    "deployment",
    "documents",
    "entries",
    "inference",
    "model",
    "pool",
    "pricing",
    "runs",
    "search",
    "status",
    "task",
    "token",
    "wallet",
]
