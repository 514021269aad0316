"""The commands; importing this package registers them."""

from evalpool.cli.commands import dataset, deployment, inference, pool, status, token, wallet

__all__ = ["dataset", "deployment", "inference", "pool", "status", "token", "wallet"]
