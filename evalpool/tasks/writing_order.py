"""What is to be written out, as it is told to the process that does."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from evalpool.tasks.prompts import Manner
from evalpool.tasks.task_file import TaskFile, read_task

OUT_OF_MEMORY = 3
"""The status with which the process ends where templates take more memory than they may."""


@dataclass(frozen=True, slots=True)
class Order:
    """A task to be written out.

    Attributes:
        file: The task's file.
        data: Files of rows by split; they go before those that the task names.
        shots: Examples before each question; None for the task's own number.
        metric: Of its metrics the only one; None for all of them.
        chat: As in `Manner`.
        system_prompt: As in `Manner`.
        row_seconds: Processor time that one question may take.
        memory_bytes: Memory that all of it may take, beside the rows that it is made of.
    """

    file: str
    data: Mapping[str, Sequence[str]] = field(default_factory=dict)
    shots: int | None = None
    metric: str | None = None
    chat: bool = False
    system_prompt: str = ""
    row_seconds: float = 2.0
    memory_bytes: int = 512 << 20

    @property
    def manner(self) -> Manner:
        """How prompts are put."""
        return Manner(self.chat, self.system_prompt)

    def encode(self) -> bytes:
        """What the process is told."""
        return json.dumps(asdict(self)).encode()

    @staticmethod
    def decode(told: bytes) -> Order:
        """The inverse of `encode`."""
        return Order(**json.loads(told))


def task_of(order: Order) -> TaskFile:
    """The task that is to be written out.

    Raises:
        TaskError: Its file asks for what is not done here.
        OSError: A file cannot be read.
    """
    task = read_task(Path(order.file), order.metric)
    if order.shots is None:
        return task
    return replace(task, shots=replace(task.shots, number=order.shots))
