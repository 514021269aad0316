"""lm-evaluation-harness's task files, run as they are: read, and written out as prompts.

Everything here is done where the file lies: what comes to a dataset service are prompts, so no
service renders anybody's templates.

Example:
    >>> task = read_task(Path("social_iqa.yaml"))
    >>> splits = read_splits(task, {"validation": [Path("dev.jsonl")]})
    >>> rows = [row_of(prompt) for prompt in choice_prompts(task, splits)]
"""

from evalpool.tasks.data import read_splits
from evalpool.tasks.errors import TaskError
from evalpool.tasks.prompts import ChoicePrompt, choice_prompts
from evalpool.tasks.rows import kind_of, row_of
from evalpool.tasks.task_file import Shots, TaskFile, read_task

__all__ = [
    "ChoicePrompt",
    "Shots",
    "TaskError",
    "TaskFile",
    "choice_prompts",
    "kind_of",
    "read_splits",
    "read_task",
    "row_of",
]
