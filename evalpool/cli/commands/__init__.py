"""The commands; importing this package registers them."""

from evalpool.cli.commands import deployment

__all__ = ["deployment"]
