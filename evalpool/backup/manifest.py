"""What a backup says of itself: its parts, and when and by which release they were written."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from .errors import BackupError

MANIFEST = "manifest.json"
FORMAT = 1

# Where a part may lie; a path that is none of these is never written to.
_DATABASE = re.compile(
    r"(?:(token|embedding|router|dataset|benchmark)/\1|worker(?:-\d+)?/worker)\.db"
)
_KEY = re.compile(r"keys/[a-z]+(?:-\d+)?\.json")
_MODEL = re.compile(r"router/repository/sha256/([0-9a-f]{2})/\1[0-9a-f]{62}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a backup.

    Attributes:
        path: Where it lies in the backup, and in a data directory.
        size_bytes: Its size.
        sha256: Its SHA-256, in hexadecimal.
        mode: Its permissions.
        schema: The revision of its tables; empty where it is no database.
    """

    path: str
    size_bytes: int
    sha256: str
    mode: int
    schema: str = ""

    @property
    def service(self) -> str:
        """The service whose database it is; empty where it is none."""
        return Path(self.path).stem if _DATABASE.fullmatch(self.path) else ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is in a backup.

    Attributes:
        release: The release of evalpool that wrote it.
        time: The moment whose state it holds.
        parts: Its files, databases first.
    """

    release: str
    time: datetime
    parts: tuple[Part, ...]

    @property
    def size_bytes(self) -> int:
        """The size of all parts together."""
        return sum(part.size_bytes for part in self.parts)

    def text(self) -> str:
        """The manifest's file: it begins with the SHA-256 of what follows."""
        content = {
            "format": FORMAT,
            "release": self.release,
            "time": self.time.isoformat(),
            "parts": [asdict(part) for part in self.parts],
        }
        return json.dumps({"sha256": _digest(content), "backup": content}, indent=1) + "\n"


def read_manifest(backup: Path) -> Manifest:
    """Read a backup's manifest.

    Raises:
        BackupError: There is none, it was changed, or another release must read it.
    """
    path = backup / MANIFEST
    try:
        document = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BackupError(
            f"{backup} has no {MANIFEST}: it is no backup, or one that was never finished; name "
            "the folder that `evalpool backup` has made"
        ) from error
    except ValueError as error:
        raise _damaged(path) from error
    try:
        content = document["backup"]
        if document["sha256"] != _digest(content):
            raise _damaged(path)
        if content["format"] != FORMAT:
            raise BackupError(
                f"{path}: it has the format {content['format']}, and this release reads {FORMAT}; "
                f"use evalpool {content['release']}"
            )
        return Manifest(
            release=content["release"],
            time=datetime.fromisoformat(content["time"]),
            parts=tuple(_part(path, each) for each in content["parts"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path) from error


def _part(manifest: Path, values: dict[str, Any]) -> Part:
    part = Part(**values)
    if not any(kind.fullmatch(part.path) for kind in (_DATABASE, _KEY, _MODEL)):
        raise BackupError(
            f'{manifest}: "{part.path}" is no file of a data directory that this release knows; '
            "use the release that made the backup"
        )
    if not _SHA256.fullmatch(part.sha256) or not 0 <= part.mode <= 0o777:
        raise _damaged(manifest)
    return part


def _damaged(path: Path) -> BackupError:
    return BackupError(f"{path} is damaged: it is not as it was written; use another backup")


def _digest(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
