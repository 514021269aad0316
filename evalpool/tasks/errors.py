"""What is wrong with a task."""

from __future__ import annotations


class TaskError(ValueError):
    """A task file, or a row of its data, cannot be used. The message names the field."""
