"""Commands in this process: what they print and how they end."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any, Protocol

import pytest

from evalpool.cli import main


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

    @property
    def error(self) -> Any:
        """The JSON object that it failed with, for programs, in one line."""
        assert self.status == 1, (self.status, self.out, self.err)
        assert self.err.count("\n") == 1, self.err
        return json.loads(self.err)


class Cli(Protocol):
    """Runs a command."""

    def __call__(self, *arguments: str) -> Outcome: ...


def in_this_process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs a command: `cli("wallet", "new", "alice")`."""

    def run(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["evalpool", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capsys.readouterr()
        return Outcome(int(caught.value.code or 0), out, err)

    return run
