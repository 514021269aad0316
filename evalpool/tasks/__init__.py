"""lm-evaluation-harness's task files, run as they are: read, and written out as prompts.

Everything here is done where the file lies: what comes to a dataset service are prompts, so no
service renders anybody's templates. They are rendered in a process with limits, since a task file
may come from anywhere.

Example:
    >>> task = read_task(Path("gsm8k.yaml"))
    >>> order = Order("gsm8k.yaml", {"test": ["test.jsonl"], "train": ["train.jsonl"]})
    >>> with open("rows.jsonl", "wb") as file:
    ...     written = write_out(order, file)
    >>> written.kind, written.count
    ('generation', 1319)
"""

from evalpool.tasks.data import read_splits
from evalpool.tasks.errors import TaskError
from evalpool.tasks.examples import SEED
from evalpool.tasks.functions import find_functions
from evalpool.tasks.generation import (
    MAX_TOKENS,
    ChoiceStep,
    Comparison,
    Generation,
    Pipeline,
    RegexStep,
    temperature_of,
)
from evalpool.tasks.prompts import ChoicePrompt, Manner, WrittenPrompt, task_prompts
from evalpool.tasks.rows import kind_of, problems_of, row_of
from evalpool.tasks.task_file import Shots, TaskFile, read_task
from evalpool.tasks.writing import BadRow, Written, write_out
from evalpool.tasks.writing_order import Order, task_of

__all__ = [
    "MAX_TOKENS",
    "SEED",
    "BadRow",
    "ChoicePrompt",
    "ChoiceStep",
    "Comparison",
    "Generation",
    "Manner",
    "Order",
    "Pipeline",
    "RegexStep",
    "Shots",
    "TaskError",
    "TaskFile",
    "Written",
    "WrittenPrompt",
    "find_functions",
    "kind_of",
    "problems_of",
    "read_splits",
    "read_task",
    "row_of",
    "task_of",
    "task_prompts",
    "temperature_of",
    "write_out",
]
