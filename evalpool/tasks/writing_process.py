"""The program of the process that writes a task out; run with `python -m`.

A task's templates are programs of whoever wrote its file. Jinja's sandbox keeps them from Python's
insides, but bounds neither their time nor their memory, so they run here: in a process that, once
the rows are read, can open nothing more, and that the kernel ends where a question takes too much.

Standard input is an `Order`. On standard output come lines of JSON: how many rows there are, then a
row each with what is wrong with it; or an error, after which nothing comes.
"""

from __future__ import annotations

import codecs
import importlib
import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import IO, Any

from evalpool.tasks.data import read_splits
from evalpool.tasks.errors import TaskError
from evalpool.tasks.prompts import WrittenPrompt, task_prompts
from evalpool.tasks.rows import kind_of, problems_of, row_of
from evalpool.tasks.writing_order import OUT_OF_MEMORY, Order, task_of

# What Jinja imports where a template asks for it; by then nothing can be opened any more.
_IMPORTED_LATE = ("html", "jinja2.constants", "jinja2.debug", "pprint", "textwrap")

_STATM = Path("/proc/self/statm")


def write_out(order: Order, output: IO[bytes]) -> None:
    """Write a task's rows out.

    Raises:
        TaskError: The task, or a row, cannot be asked.
        MemoryError: The process has too little memory; it is of no use any more.
    """
    task = task_of(order)
    given = {split: [Path(name) for name in names] for split, names in order.data.items()}
    splits = read_splits(task, given)
    _tell(output, rows=len(splits.get(task.split, ())))
    prompts = task_prompts(task, splits, order.manner)
    confine(order.memory_bytes)
    while True:
        # Where the timer runs out, the kernel ends the process, whatever it is at.
        signal.setitimer(signal.ITIMER_PROF, order.row_seconds)
        prompt = next(prompts, None)
        if prompt is None:
            return
        row = row_of(prompt)
        problems = problems_of(row)
        system = prompt.system if isinstance(prompt, WrittenPrompt) else ""
        kept = None if problems else row
        _tell(output, kind=kind_of(prompt), system=system, row=kept, problems=problems)


def confine(memory_bytes: int) -> None:
    """Take from this process, for good, what rendering does not need.

    How much memory it has is known on Linux alone; elsewhere that is not bounded.
    """
    for module in _IMPORTED_LATE:
        importlib.import_module(module)
    # Of escapes in the templates' texts.
    codecs.lookup("unicode_escape")
    if _STATM.exists():
        pages = int(_STATM.read_text().split()[0])
        most = pages * resource.getpagesize() + memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    for limit in (resource.RLIMIT_NOFILE, resource.RLIMIT_CORE, resource.RLIMIT_NPROC):
        resource.setrlimit(limit, (0, 0))


def _tell(output: IO[bytes], **values: Any) -> None:
    output.write(json.dumps(values).encode() + b"\n")
    output.flush()


def main() -> None:
    """Do what standard input asks for."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    # Who is interrupted is the one that waits for this.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    output = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # Whatever a library prints is no row.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        write_out(Order.decode(sys.stdin.buffer.read()), output)
    except TaskError as error:
        _tell(output, error=str(error))
    except MemoryError:
        # Without another byte of memory.
        os._exit(OUT_OF_MEMORY)
    except BrokenPipeError:
        # Nobody waits for it any more.
        os._exit(0)


if __name__ == "__main__":
    main()
