"""The store's whole files, by their digests, and who uses them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from evalpool.values import parse_digest

from .disk import sync_folder
from .errors import ModelNotFound
from .locks import shared, try_exclusive

_DIGEST = re.compile(r"[0-9a-f]{64}")


class Shelf:
    """Files under `sha256/`, and a pin for each under `pins/`.

    Who uses a file holds its pin's lock, shared; who removes it holds that alone. Pins are made,
    locked and removed under the store's lock, which the caller holds; a pin's lock outlasts it.

    Args:
        root: The store's folder.
        clock: The time in seconds since the epoch.
    """

    def __init__(self, root: Path, clock: Callable[[], float]) -> None:
        self._files = root / "sha256"
        self._pins = root / "pins"
        self._clock = clock
        for folder in (self._files, self._pins):
            folder.mkdir(parents=True, exist_ok=True)

    def place(self, digest: str) -> Path:
        """Where the file of a digest is, or would be.

        Raises:
            InvalidValue: It is no digest.
        """
        parse_digest(digest)
        return self._files / digest[:2] / digest

    def find(self, digest: str) -> Path:
        """Where the file of a digest is.

        Raises:
            ModelNotFound: There is none.
        """
        place = self.place(digest)
        if not place.is_file():
            raise ModelNotFound(f"the store has no file with the SHA-256 {digest}; fetch it first")
        return place

    def files(self) -> list[tuple[Path, os.stat_result]]:
        """The files, and what the file system says of each."""
        return [
            (place, place.stat())
            for place in self._files.glob("??/*")
            if _DIGEST.fullmatch(place.name)
        ]

    def touch(self, place: Path) -> None:
        """Count a file as used now."""
        now = self._clock()
        # A file that another user of a shared folder put can't be touched; its age then counts.
        with suppress(PermissionError, FileNotFoundError):
            os.utime(place, (now, now))

    def take_in(self, content: Path, digest: str) -> Path:
        """Move a verified and durable file to its place, for good."""
        place = self.place(digest)
        made = not place.parent.exists()
        place.parent.mkdir(exist_ok=True)
        content.replace(place)
        # Not before: what a crash leaves as a part must be writable, to be gone on with.
        place.chmod(0o444)
        sync_folder(place.parent)
        if made:
            sync_folder(place.parent.parent)
        return place

    @contextmanager
    def pinned(self, digest: str) -> Iterator[None]:
        """Use a file. Leaving needs no lock."""
        pin = self._open_pin(digest)
        try:
            shared(pin)
            yield
        finally:
            os.close(pin)

    @contextmanager
    def unused(self, digest: str) -> Iterator[bool]:
        """Hold a file against use; False where somebody uses it."""
        pin = self._open_pin(digest)
        try:
            yield try_exclusive(pin)
        finally:
            os.close(pin)

    def remove(self, place: Path) -> None:
        """Remove a file that is held against use."""
        place.unlink()
        (self._pins / place.name).unlink(missing_ok=True)

    def remove_oldest(self, excess: int) -> int:
        """Remove the files that were unused the longest, if they suffice.

        Args:
            excess: How many bytes have to go.

        Returns:
            How many bytes are still too many; where there are any, nothing was removed.
        """
        oldest = sorted(self.files(), key=lambda each: (each[1].st_mtime, each[0].name))
        going: list[Path] = []
        with ExitStack() as held:
            for place, status in oldest:
                if excess <= 0:
                    break
                if held.enter_context(self.unused(place.name)):
                    going.append(place)
                    excess -= status.st_size
            if excess <= 0:
                for place in going:
                    self.remove(place)
        return max(excess, 0)

    def clean(self) -> None:
        """Remove pins of files that are gone."""
        for pin in self._pins.iterdir():
            if not (self._files / pin.name[:2] / pin.name).exists():
                pin.unlink()

    def _open_pin(self, digest: str) -> int:
        return os.open(self._pins / digest, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
