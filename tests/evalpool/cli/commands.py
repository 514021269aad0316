"""What a command printed and how it ended."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended.

    Attributes:
        status: Its exit status.
        out: Its standard output.
        err: Its standard error.
    """

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The JSON document that it printed, and nothing else."""
        assert self.status == 0, self.err
        return json.loads(self.out)

    @property
    def failure(self) -> str:
        """The one line that it failed with."""
        assert self.status == 1, (self.status, self.out, self.err)
        assert self.err.startswith("error: "), self.err
        assert self.err.count("\n") == 1, self.err
        return self.err.removeprefix("error: ").rstrip("\n")


class Cli(Protocol):
    """Runs a command."""

    def __call__(self, *arguments: str) -> Outcome: ...
