"""Progress bars, on standard error so that results can be piped."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from evalpool.cli.output import errors


class Tracker:
    """One bar: what is being done, how far it is.

    Args:
        what: What is being done.
        quiet: Show nothing.
        in_bytes: The count is of bytes, not of things.
    """

    def __init__(self, what: str, *, quiet: bool = False, in_bytes: bool = False) -> None:
        counts = [DownloadColumn(), TransferSpeedColumn()] if in_bytes else [MofNCompleteColumn()]
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            *counts,
            TimeRemainingColumn(),
            console=errors,
            # In a log a bar would be noise before the line that matters.
            disable=quiet or not errors.is_terminal,
        )
        self._what = what
        self._quiet = quiet
        self._noted = ""
        self._task = self._progress.add_task(what, total=None)

    def show(self, stage: str, done: int, total: int | None) -> None:
        """Show how far it is."""
        self._progress.update(
            self._task,
            description=f"{self._what} {stage}".strip(),
            completed=done,
            total=total or None,
        )

    def note(self, sentence: str) -> None:
        """Say something in a line of its own, unless it was said last; empty: nothing."""
        if sentence and sentence != self._noted and not self._quiet:
            errors.print(sentence)
        self._noted = sentence

    def __enter__(self) -> Self:
        """Show the bar."""
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the bar as it is."""
        self._progress.stop()
