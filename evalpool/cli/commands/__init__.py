"""The commands; importing this package registers them."""

from evalpool.cli.commands import (
    create,
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
    "create",
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
