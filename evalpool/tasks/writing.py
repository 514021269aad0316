"""A task written out, row by row, by a process of its own; see `writing_process`."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import IO, Any

from evalpool.tasks.errors import TaskError
from evalpool.tasks.writing_order import OUT_OF_MEMORY, Order, task_of

_COMMAND = (sys.executable, "-P", "-m", "evalpool.tasks.writing_process")
_MAX_LINE_BYTES = 16 << 20
_MAX_BYTES = 1 << 30
_MAX_TOLD = 100


@dataclass(frozen=True, slots=True)
class BadRow:
    """What a dataset service would refuse in a question.

    Attributes:
        number: The question's place, from 1.
        field: Such as "choices[2]"; "" for the whole row.
        message: What is wrong with it.
    """

    number: int
    field: str
    message: str


@dataclass(frozen=True, slots=True)
class Written:
    """A task that was written out.

    Attributes:
        kind: The kind of dataset that its rows belong to.
        system_prompt: What its conversations begin with; "" for plain text.
        count: Its questions.
        bad: What is wrong with some of them, at most 100 times; nothing of these was written.
        bad_count: How often something is wrong.
    """

    kind: str
    system_prompt: str
    count: int
    bad: tuple[BadRow, ...]
    bad_count: int


def write_out(
    order: Order, to: IO[bytes], progress: Callable[[int, int], None] | None = None
) -> Written:
    """Write a task's rows as JSON Lines.

    Args:
        order: The task, and how it is put.
        to: Where the rows go.
        progress: Called with the questions written so far and those that there are.

    Raises:
        TaskError: The task, or a row, cannot be asked, or takes too much; the message names it.
    """
    total, count, size, bad_count = 0, 0, 0, 0
    bad: list[BadRow] = []
    first: Any = None
    with closing(_told(order)) as lines:
        for told in lines:
            if "rows" in told:
                total = told["rows"]
                continue
            count += 1
            first = first or told
            _check_alike(order, count, first, told)
            problems = [BadRow(count, *problem) for problem in told["problems"]]
            bad_count += len(problems)
            bad += problems[: _MAX_TOLD - len(bad)]
            if told["row"] is not None:
                size += to.write(json.dumps(told["row"], ensure_ascii=False).encode() + b"\n")
            if size > _MAX_BYTES:
                raise TaskError(
                    f"{_place(order, count)}: the rows are larger than {_MAX_BYTES >> 30} GiB"
                )
            if progress:
                progress(count, total)
    if first is None:
        raise TaskError(f"{task_of(order).split}: there are no rows in this split")
    return Written(first["kind"], first["system"], count, tuple(bad), bad_count)


def _told(order: Order) -> Generator[Any]:
    """What the process tells, but for errors."""
    count = 0
    with subprocess.Popen(_COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:  # noqa: S603
        assert process.stdin is not None  # noqa: S101
        assert process.stdout is not None  # noqa: S101
        try:
            # One that cannot even begin tells by its status.
            with suppress(BrokenPipeError):
                process.stdin.write(order.encode())
                process.stdin.close()
            while line := process.stdout.readline(_MAX_LINE_BYTES):
                if not line.endswith(b"\n"):
                    # It was ended in the middle of a line, or the line has no end.
                    process.kill()
                    break
                told = json.loads(line)
                if "error" in told:
                    raise TaskError(told["error"])
                count += "rows" not in told
                yield told
            status = process.wait()
        finally:
            process.kill()
    if status != 0:
        raise TaskError(f"{_place(order, count + 1)}: {_cause_of_death(order, status)}")


def _cause_of_death(order: Order, status: int) -> str:
    if status == -signal.SIGPROF:
        return f"its templates take more than {order.row_seconds:g} s"
    if status == OUT_OF_MEMORY:
        return f"its templates take more than {order.memory_bytes >> 20} MiB of memory"
    return f"the process that renders its templates ended with status {status}"


def _check_alike(order: Order, count: int, first: Any, told: Any) -> None:
    if told["kind"] != first["kind"]:
        raise TaskError(
            f"{_place(order, count)}: doc_to_text: it is of the kind {told['kind']}, and row 1 of "
            f"the kind {first['kind']}; make two tasks of them"
        )
    if told["system"] != first["system"]:
        raise TaskError(
            f"{_place(order, count)}: description: it is another one than that of row 1, and a "
            "dataset has one system prompt; leave the chat template out"
        )


def _place(order: Order, number: int) -> str:
    return f"{task_of(order).split}, row {number}"
