"""What keeps a backup from being made, verified or restored."""

from __future__ import annotations


class BackupError(Exception):
    """Why not; the message names the file or folder and the remedy."""
