"""The questions that ship with the project."""

from __future__ import annotations

from pathlib import Path


def everyday_questions() -> Path:
    """The sample questions about everyday situations, in Social IQa's form.

    Raises:
        FileNotFoundError: The installation lacks them.
    """
    package = Path(__file__).resolve().parent
    # In an installed wheel they lie in the package, in a source tree beside it.
    for folder in (package / "samples", package.parent / "samples"):
        path = folder / "everyday.jsonl"
        if path.is_file():
            return path
    raise FileNotFoundError("everyday.jsonl is missing; install evalpool again")
