"""Loaders of question files: JSON Lines, a JSON array, CSV and Parquet.

Example:
    >>> loader = QuestionLoader(Format.JSON_LINES, kind.rows)
    >>> for chunk in chunks:
    ...     loader.feed(chunk)
    >>> result = loader.finish()  # LoadedQuestions or LoadProblems
"""

from evalpool_dataset.loaders.loader import Format, LoadedQuestions, QuestionLoader
from evalpool_dataset.loaders.problems import LoadProblems, RowProblem
from evalpool_dataset.loaders.reading import Limits, Row, RowForm

__all__ = [
    "Format",
    "Limits",
    "LoadProblems",
    "LoadedQuestions",
    "QuestionLoader",
    "Row",
    "RowForm",
    "RowProblem",
]
