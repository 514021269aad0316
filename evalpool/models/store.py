"""A folder of files by their SHA-256, bounded, shared by any number of processes.

The layout, under one root on one file system::

    sha256/ab/abcd…      a whole and verified file, read-only; its modification time is its last use
    partial/…            files on their way; a folder each, locked by its writer
    pins/abcd…           locked, shared, by everybody who uses the file
    learned/…            which digest a source without a known one turned out to have
    locks/…              the store's lock (short) and one a digest being fetched (long)

Every lock is the kernel's and ends with its process. A file appears under its digest by a rename,
after it was verified and made durable, so that a crash leaves nothing but a part.
"""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from evalpool.values import InvalidValue, parse_digest

from .disk import writing
from .errors import DigestMismatch, ModelInUse, ModelNotFound, SizeMismatch, StoreFull
from .learned import LearnedDigests
from .locks import across_processes, waiting
from .partial import PartialFile, Parts, sha256_of
from .progress import Progress, no_progress
from .shelf import Shelf
from .sources import Source
from .upload import Upload

_CHUNK = 1024 * 1024


def default_store_root() -> Path:
    """The folder of the user's store: `EVALPOOL_MODEL_STORE`, else one in the cache folder."""
    configured = os.environ.get("EVALPOOL_MODEL_STORE")
    return Path(configured) if configured else platformdirs.user_cache_path("evalpool") / "models"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file in the store.

    Attributes:
        digest: Its SHA-256.
        size_bytes: Its size.
        last_used: When it was last put, asked for or pinned, in seconds since the epoch.
        pinned: Whether somebody uses it now.
    """

    digest: str
    size_bytes: int
    last_used: float
    pinned: bool


class ModelStore:
    """Keeps files by their SHA-256. Every method blocks on the disk; all are safe in threads.

    Digests are 64 lower-case hexadecimal digits; any other text raises `InvalidValue`.

    Args:
        root: The store's folder, made if it does not exist.
        capacity_bytes: How much it holds at most, parts and reservations among it. Before it grows
            past this, the files that were unused the longest are removed, pinned ones never.
            None for no bound.
        partial_seconds: How long a part is kept for its continuation.
        clock: The time in seconds since the epoch.
    """

    def __init__(
        self,
        root: Path,
        *,
        capacity_bytes: int | None = None,
        partial_seconds: float = 7 * 86400.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.root = root.absolute()
        self.capacity_bytes = capacity_bytes
        self._partial_seconds = partial_seconds
        self._clock = clock
        self._shelf = Shelf(self.root, clock)
        self._parts = Parts(self.root / "partial", self._keep)
        self._learned = LearnedDigests(self.root / "learned")
        (self.root / "locks").mkdir(exist_ok=True)
        self.clean()

    def has(self, digest: str) -> bool:
        """Tell whether the store has the file."""
        return self._shelf.place(digest).is_file()

    def path(self, digest: str) -> Path:
        """Give the file's path, and count it as used now. Only a pin keeps it from eviction.

        Raises:
            ModelNotFound: The store does not have it.
        """
        place = self._shelf.find(digest)
        self._shelf.touch(place)
        return place

    def size(self, digest: str) -> int:
        """Give the file's size in bytes.

        Raises:
            ModelNotFound: The store does not have it.
        """
        return self._shelf.find(digest).stat().st_size

    def entries(self) -> tuple[StoredFile, ...]:
        """List the files, by digest."""
        with self._locked():
            found = []
            for place, status in self._shelf.files():
                with self._shelf.unused(place.name) as free:
                    found.append(StoredFile(place.name, status.st_size, status.st_mtime, not free))
        return tuple(sorted(found, key=lambda entry: entry.digest))

    @contextmanager
    def pinned(self, digest: str) -> Iterator[Path]:
        """Use a file: until the context ends, no process evicts or removes it.

        Raises:
            ModelNotFound: The store does not have it.
        """
        with ExitStack() as pin:
            with self._locked():
                place = self._shelf.find(digest)
                self._shelf.touch(place)
                pin.enter_context(self._shelf.pinned(digest))
            yield place

    def remove(self, digest: str) -> None:
        """Remove a file.

        Raises:
            ModelNotFound: The store does not have it.
            ModelInUse: Somebody uses it.
        """
        with self._locked():
            place = self._shelf.find(digest)
            with self._shelf.unused(digest) as free:
                if not free:
                    raise ModelInUse(f"{digest} is in use; unload it first")
                self._shelf.remove(place)

    def verify(self, digest: str) -> None:
        """Read a file and compare it with its digest; a file that is damaged is removed.

        Raises:
            ModelNotFound: The store does not have it.
            DigestMismatch: It was damaged.
        """
        with self.pinned(digest) as place:
            actual = sha256_of(place)
        if actual != digest:
            with suppress(ModelNotFound):
                self.remove(digest)
            raise DigestMismatch(digest, actual, "the stored file")

    def put_file(self, source: Path, digest: str | None = None) -> str:
        """Copy a file into the store and give its digest.

        Args:
            source: The file; it stays where it is.
            digest: The SHA-256 that it must have, if known.

        Raises:
            DigestMismatch: It has another one; nothing is kept.
            StoreFull: There is no room for it.
        """
        with source.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            return self.put_stream(iter(lambda: file.read(_CHUNK), b""), digest=digest, size=size)

    def put_stream(
        self, chunks: Iterable[bytes], *, digest: str | None = None, size: int | None = None
    ) -> str:
        """Write chunks into the store as one file and give its digest.

        Args:
            chunks: The content.
            digest: The SHA-256 that it must have, if known.
            size: The number of bytes that it must have, if known.

        Raises:
            DigestMismatch: It has another digest; nothing is kept.
            SizeMismatch: It has another size; nothing is kept.
            StoreFull: There is no room for it.
        """
        if digest is not None:
            parse_digest(digest)
        most = self.capacity_bytes if size is None else size
        running = hashlib.sha256()
        done = 0
        with self.partial("put", uuid.uuid4().hex, size) as partial:
            try:
                with writing(self.root), partial.content.open("wb") as file:
                    for chunk in chunks:
                        done += len(chunk)
                        if most is not None and done > most:
                            raise self._too_long(size, most)
                        file.write(chunk)
                        running.update(chunk)
                if size is not None and done != size:
                    raise SizeMismatch(
                        f"{done} of the announced {size} bytes came; nothing was kept"
                    )
                actual = running.hexdigest()
                if digest is not None and actual != digest:
                    raise DigestMismatch(digest, actual, "the content that came")
                partial.keep_verified(actual)
                return actual
            finally:
                partial.discard()

    def begin_upload(self, digest: str, size: int, *, owner: str = "") -> Upload:
        """Begin to take a content in pieces, or go on with a part that is here.

        Args:
            digest: The SHA-256 of the whole.
            size: The number of bytes of the whole; they are reserved.
            owner: Whose part it is. Parts of different owners never mix, so that nobody can spoil
                another's upload.

        Raises:
            InvalidValue: The digest or the size is none.
            ModelInUse: The same owner is sending it already.
            StoreFull: There is no room for it.
        """
        if size < 1:
            raise InvalidValue(f"the size is {size}; announce at least 1 byte")
        partial = self.partial("upload", _upload_key(digest, owner), size)
        try:
            return Upload(partial, digest, size)
        except BaseException:
            partial.close()
            raise

    def upload_offset(self, digest: str, size: int, *, owner: str = "") -> int:
        """How many bytes of an upload are here, without going on with it; as in `begin_upload`."""
        return self._parts.written("upload", _upload_key(digest, owner), size)

    def partial(self, purpose: str, key: str, size: int | None = None) -> PartialFile:
        """Begin to write a file, or go on with one; the size, if known, is reserved.

        Args:
            purpose: "fetch" and "upload" are kept for a continuation, "put" is not.
            key: What tells one file of this purpose from another; hexadecimal digits and dots.
            size: The announced size in bytes.

        Raises:
            ModelInUse: Another writer holds it.
            StoreFull: There is no room for it.
        """
        with writing(self.root), self._locked():
            partial = self._parts.hold(purpose, key, size)
            try:
                # Its folder's name reserves the size from here on.
                self._make_room()
            except BaseException:
                partial.close()
                raise
            return partial

    @contextmanager
    def fetching(
        self, key: str, progress: Progress = no_progress, size: int | None = None
    ) -> Iterator[None]:
        """Be the only one, in all processes, who fetches this; waits for the one who does.

        Args:
            key: A digest, or the learned-source key of what has none.
            progress: Called while waiting, with 0 bytes done; it may raise to cancel.
            size: The total that `progress` is told.
        """
        with waiting(self.root / "locks" / f"{key}.lock", progress, size):
            yield

    def learned_digest(self, source: Source) -> str | None:
        """The digest that a source turned out to have when it was fetched without knowing it."""
        return self._learned.find(source)

    def learn_digest(self, source: Source, digest: str) -> None:
        """Remember the digest that a source turned out to have."""
        with self._locked():
            self._learned.write(source, digest)

    def clean(self) -> None:
        """Remove what crashes left, and parts that nobody went on with for too long."""
        with self._locked():
            self._parts.clean(self._clock() - self._partial_seconds)
            self._shelf.clean()

    def _keep(self, content: Path, digest: str) -> Path:
        """Move a verified file to its place. It counts as a part until it is there."""
        with self._locked():
            place = self._shelf.place(digest)
            if not place.exists():
                self._make_room()
                self._shelf.take_in(content, digest)
            self._shelf.touch(place)
        return place

    def _make_room(self) -> None:
        """Evict until everything, reservations among it, fits. The store's lock is held."""
        if self.capacity_bytes is None:
            return
        kept = sum(status.st_size for _, status in self._shelf.files())
        excess = self._shelf.remove_oldest(kept + self._parts.reserved() - self.capacity_bytes)
        if excess:
            raise StoreFull(
                f"the store {self.root} holds at most {self.capacity_bytes} bytes, and "
                f"{excess} more are needed even without every file that is not in use; "
                "remove models or raise the capacity"
            )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with across_processes(self.root / "locks" / "store.lock"):
            yield

    def _too_long(self, size: int | None, most: int) -> SizeMismatch | StoreFull:
        if size is None:
            return StoreFull(f"the content is longer than the store's capacity of {most} bytes")
        return SizeMismatch(f"more than the announced {size} bytes came; nothing was kept")


def _upload_key(digest: str, owner: str) -> str:
    suffix = "." + hashlib.sha256(owner.encode()).hexdigest()[:16] if owner else ""
    return parse_digest(digest) + suffix
