"""The command line: `evalpool`."""

from evalpool.cli.app import main

__all__ = ["main"]
