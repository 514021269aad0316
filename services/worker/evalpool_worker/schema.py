"""The worker's tables: its settings as set by calls, and the tokens of those calls."""

from __future__ import annotations

from sqlalchemy import Column, MetaData, Table, Text

from evalpool_runtime.columns import Json
from evalpool_runtime.replay import seen_tokens_table

metadata = MetaData()

settings = Table(
    "settings",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Json, nullable=False),
)

seen_tokens = seen_tokens_table(metadata)
