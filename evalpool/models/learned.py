"""The digests that sources without a known one turned out to have."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from evalpool.values import parse_digest

from .sources import Source


def source_key(source: Source) -> str:
    """A name for a source that is a file's name: the SHA-256 of its text."""
    return hashlib.sha256(str(source).encode()).hexdigest()


class LearnedDigests:
    """A note for each source, in a folder. Notes are written under the store's lock.

    Args:
        folder: The folder, made if it does not exist.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def find(self, source: Source) -> str | None:
        """The digest that a source turned out to have; None where it was never fetched."""
        try:
            note = json.loads(self._note(source).read_text(encoding="utf-8"))
            return parse_digest(note["digest"])
        # A note that a crash cut off is none: the source tells again.
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def write(self, source: Source, digest: str) -> None:
        """Remember the digest that a source turned out to have."""
        text = json.dumps({"source": str(source), "digest": parse_digest(digest)})
        note = self._note(source)
        draft = note.with_suffix(".new")
        draft.write_text(text, encoding="utf-8")
        draft.replace(note)

    def _note(self, source: Source) -> Path:
        return self._folder / f"{source_key(source)}.json"
