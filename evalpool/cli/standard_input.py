"""Texts that are piped in."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from evalpool.cli.failure import Failure


def whole() -> str:
    """All of standard input.

    Raises:
        Failure: It is no text in UTF-8.
    """
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise _no_text(error) from error


def lines() -> Iterator[str]:
    """Standard input line by line as it comes, without the empty ones.

    Raises:
        Failure: It is no text in UTF-8.
    """
    try:
        for line in sys.stdin:
            if text := line.strip():
                yield text
    except UnicodeDecodeError as error:
        raise _no_text(error) from error


def _no_text(error: UnicodeDecodeError) -> Failure:
    return Failure(f"standard input is no text in {error.encoding}; convert it")
