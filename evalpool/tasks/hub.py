"""Rows of the hub of Hugging Face, through the library `datasets` where that is installed.

It is no dependency. Python that comes with a data set is never run: the library refuses what needs
it.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

from evalpool.tasks.errors import TaskError
from evalpool.tasks.task_file import TaskFile


def hub_splits(task: TaskFile) -> dict[str, list[dict[str, Any]]] | None:
    """The rows of the splits that a task needs; None where the library is not installed.

    Raises:
        TaskError: The library cannot load them.
    """
    # Releases before 4 would ask at the terminal.
    os.environ["HF_DATASETS_TRUST_REMOTE_CODE"] = "0"
    try:
        library = importlib.import_module("datasets")
    except ImportError:
        return None
    try:
        loaded = library.load_dataset(task.dataset, task.configuration, **task.dataset_kwargs)
        wanted = {task.split, task.shots_split}
        return {split: [dict(row) for row in loaded[split]] for split in loaded if split in wanted}
    except TaskError:
        raise
    except Exception as error:
        # Of the library, of the hub, of the network: whatever it is, the data set is not there.
        raise TaskError(
            f"dataset_path: the library datasets cannot load {task.dataset}: {error}; give its "
            f"rows, as in --data {task.split}=FILE"
        ) from error
