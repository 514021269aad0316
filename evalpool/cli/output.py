"""How results are printed: tables where people read, JSON where programs do."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

# Where nobody looks at a terminal, tables are as wide as they need to be.
_PIPED_WIDTH = 160


def _console(*, stderr: bool) -> Console:
    terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(
        stderr=stderr,
        width=None if terminal else _PIPED_WIDTH,
        # Names and texts are other people's: brackets and colons in them are no markup.
        markup=False,
        emoji=False,
        highlight=False,
        soft_wrap=True,
    )


console = _console(stderr=False)
errors = _console(stderr=True)


class Format(StrEnum):
    """How a command prints its result."""

    TABLE = "table"
    JSON = "json"


def as_json(value: Any) -> Any:
    """Messages, and whatever holds them, as JSON values with the contract's field names."""
    if isinstance(value, Message):
        return MessageToDict(
            value, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
    if isinstance(value, dict):
        return {key: as_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(inner) for inner in value]
    return value


def print_json(value: Any) -> None:
    """Print one JSON document."""
    print(json.dumps(as_json(value), indent=2, ensure_ascii=False))


def print_json_line(value: Any) -> None:
    """Print one line of JSON Lines."""
    print(json.dumps(as_json(value), ensure_ascii=False), flush=True)


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None
) -> None:
    """Print a table; columns whose name begins with ">" are aligned to the right."""
    table = Table(
        title=None if title is None else printable(title),
        title_justify="left",
        header_style="bold",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    for column in columns:
        right = column.startswith(">")
        table.add_column(column.removeprefix(">"), justify="right" if right else "left")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    console.print(table, soft_wrap=False)


def print_fields(fields: dict[str, Any]) -> None:
    """Print names and values, one a line."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in fields.items():
        if value not in ("", None):
            table.add_row(name, _cell(value))
    console.print(table, soft_wrap=False)


def short(identifier: str, length: int = 10) -> str:
    """The beginning of a long id."""
    return identifier if len(identifier) <= length + 1 else identifier[:length] + "…"


def enum_text(name: str, prefix: str) -> str:
    """An enum value's name as people read it: without its prefix, in lower case."""
    return name.removeprefix(prefix).lower().replace("_", " ")


def moment(timestamp: Timestamp) -> str:
    """A moment as people read it, in UTC; empty where unset."""
    if not timestamp.seconds:
        return ""
    return timestamp.ToDatetime().strftime("%Y-%m-%d %H:%M:%S")


def printable(text: str) -> str:
    """A text without what would command a terminal; lines and tabs stay."""
    return "".join(c if c in "\n\t" or unicodedata.category(c) != "Cc" else "�" for c in text)


def _cell(value: Any) -> str:
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    return "" if value is None else printable(str(value))
