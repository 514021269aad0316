"""Bring a model into the store from where it comes from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from evalpool.values import parse_digest

from .catalogue import CatalogueModel
from .errors import ModelError, ModelFetchError, ModelNotFound, StoreFull
from .fetch import fetch
from .gguf import read_gguf
from .learned import source_key
from .partial import Check
from .policy import FetchLimits, FetchPolicy
from .progress import Progress, no_progress
from .sources import HttpsSource, HubSource, Source
from .store import ModelStore


def ensure(
    store: ModelStore,
    model: CatalogueModel,
    progress: Progress = no_progress,
    *,
    policy: FetchPolicy | None = None,
    limits: FetchLimits | None = None,
) -> Path:
    """Give the path of a catalogue model's file, fetching it if the store does not have it. Blocks.

    The path's name is the file's digest, also where the catalogue does not know it: the store
    remembers it then, and the next call needs no network.

    Args:
        store: Where the file is kept. Pin it (`store.pinned`) while it is used.
        model: The catalogue's entry.
        progress: Called with the bytes done and the total while fetching; it may raise to cancel.
        policy: What may be reached; by default what the environment says.
        limits: How much and how long.

    Raises:
        ModelFetchError: The source could not be fetched.
        DigestMismatch: The source gave another content than the catalogue promises.
        InvalidGguf: A language model's source gave no usable GGUF file.
        StoreFull: The store has no room for it.
    """
    return pull(
        store,
        (model.source,),
        digest=model.sha256,
        size_bytes=model.size_bytes,
        progress=progress,
        policy=policy,
        limits=limits,
        check=_check_gguf if model.kind == "language" else None,
    )


def pull(
    store: ModelStore,
    sources: Sequence[Source],
    *,
    digest: str | None = None,
    size_bytes: int | None = None,
    progress: Progress = no_progress,
    policy: FetchPolicy | None = None,
    limits: FetchLimits | None = None,
    check: Check | None = None,
) -> Path:
    """Give the path of a file, fetching it from the first source that has it. Blocks.

    Several processes that share a store and want the same file fetch it once.

    Args:
        store: Where the file is kept.
        sources: Where it can be had, tried in order; at least one.
        digest: The SHA-256 that it must have. None to learn it: from one source only, and the
            path's name then tells it.
        size_bytes: The size that it must have, if known.
        progress: Called with the bytes done and the total; it may raise to cancel.
        policy: What may be reached; by default what the environment says.
        limits: How much and how long.
        check: Looks at a fetched file, once its digest is right, and raises a `ModelError` to
            refuse it.

    Raises:
        InvalidValue: The digest is none.
        ModelFetchError: No source could be fetched. With one source, what `check` raises and
            `DigestMismatch` come as they are; with more they are among the reasons.
        StoreFull: The store has no room for it.
    """
    if not sources or (digest is None and len(sources) > 1):
        raise ValueError("give one source, or a digest and one or more sources")
    if digest is not None:
        parse_digest(digest)
    if (present := _present(store, sources[0], digest)) is not None:
        return present
    policy = policy or FetchPolicy.from_environment()
    limits = limits or FetchLimits()
    bounds = (limits.max_bytes, size_bytes, store.capacity_bytes)
    limits = dataclasses.replace(
        limits, max_bytes=min(bound for bound in bounds if bound is not None)
    )
    key = digest or source_key(sources[0])
    errors: list[ModelError] = []
    with store.fetching(key, progress, size_bytes):
        # Another process may have fetched it while this one waited.
        if (present := _present(store, sources[0], digest)) is not None:
            return present
        for source in sources:
            with store.partial("fetch", f"{key}.{source_key(source)[:16]}", size_bytes) as partial:
                try:
                    fetch(
                        source,
                        partial.content,
                        _with_total(progress, size_bytes),
                        policy=policy,
                        limits=limits,
                    )
                except ModelFetchError as error:
                    if not isinstance(source, HttpsSource | HubSource):
                        # Only downloads are continued.
                        partial.discard()
                    errors.append(error)
                    continue
                except StoreFull:
                    # A part would keep the disk full for everybody else on it.
                    partial.discard()
                    raise
                try:
                    path = partial.keep(digest, check)
                except StoreFull:
                    raise
                except ModelError as error:
                    errors.append(error)
                    continue
            if digest is None:
                store.learn_digest(source, path.name)
            return path
    if len(errors) == 1:
        raise errors[0]
    raise ModelFetchError("no source worked: " + "; ".join(str(error) for error in errors))


def _present(store: ModelStore, source: Source, digest: str | None) -> Path | None:
    wanted = digest or store.learned_digest(source)
    if wanted is None:
        return None
    try:
        return store.path(wanted)
    except ModelNotFound:
        return None


def _check_gguf(path: Path) -> None:
    read_gguf(path)


def _with_total(progress: Progress, size_bytes: int | None) -> Progress:
    """Fill in the total where the source does not know it and the caller does."""
    return lambda done, total: progress(done, size_bytes if total is None else total)
