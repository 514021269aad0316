"""The commands; importing this package registers them."""

from evalpool.cli.commands import (
    dataset,
    demo,
    deployment,
    inference,
    model,
    pool,
    status,
    token,
    wallet,
)

__all__ = [
    "dataset",
    "demo",
    "deployment",
    "inference",
    "model",
    "pool",
    "status",
    "token",
    "wallet",
]
