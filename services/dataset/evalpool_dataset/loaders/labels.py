"""Labels in a file of their own, one line a row, such as Social IQa's `dev-labels.lst`."""

from __future__ import annotations

from evalpool_dataset.loaders.problems import RowProblem
from evalpool_dataset.loaders.reading import BYTE_ORDER_MARK


def read_labels(content: bytes) -> list[str] | RowProblem:
    """Read the labels.

    Empty lines at the end are passed over; elsewhere they would shift the labels, and are refused.

    Args:
        content: The file's bytes.

    Returns:
        The labels, stripped of white space, in order; or what is wrong with the file.
    """
    try:
        text = content.removeprefix(BYTE_ORDER_MARK).decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return RowProblem(
            line, "", "the labels are no UTF-8; save the file as UTF-8", file="labels"
        )
    labels = [line.strip() for line in text.rstrip().split("\n")]
    for number, label in enumerate(labels, start=1):
        if not label:
            return RowProblem(
                number, "", "the line is empty; give one label a line, none left out", file="labels"
            )
    return labels
