"""Backups of a data directory as `evalpool up` makes it, taken while the services run or not.

A backup is a folder with the same files in the same places as in the data directory, and a
manifest::

    manifest.json            release, time, and of each part its size, SHA-256, mode and schema
    token/token.db …         each service's database, all as they were at one moment
    keys/token.json …        the services' keys and the operator's
    router/repository/…      the models that people have uploaded

What can be had again is not in it: models of the catalogue, vectors, logs.
"""

from .checking import verify_backup
from .errors import BackupError
from .making import DATABASES, make_backup
from .manifest import Manifest, Part
from .restoring import restore_backup

__all__ = [
    "DATABASES",
    "BackupError",
    "Manifest",
    "Part",
    "make_backup",
    "restore_backup",
    "verify_backup",
]
