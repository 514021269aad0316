"""Small contents, and what a store has of them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from evalpool.models import ModelStore

A, B, C, D = (bytes([letter]) * 100 for letter in b"abcd")


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def parts(store: ModelStore) -> list[Path]:
    """The folders of files on their way."""
    return list((store.root / "partial").iterdir())
