"""Document sets: their states, and what may be done in each."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from evalpool_runtime.errors import Aborted, AlreadyExists, FailedPrecondition, NotFound, reasons

MAX_FAILURES = 5
"""Failures in a row after which a content counts as failed, until its owner makes it again."""


class SetState(StrEnum):
    """What has become of a content."""

    UPLOADING = "uploading"
    EMBEDDING = "embedding"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Content:
    """A list of documents and its vectors, kept once.

    Attributes:
        id: Never used again.
        digest: The content's SHA-256; empty while documents still come in.
        state: What has become of it.
        document_count: Documents in it.
        embedded_count: Documents whose vectors are written; they are the first ones.
        failures: Failures to embed it, in a row.
        failure: What the last one was.
        model_digest: The model that embeds it.
        is_entered: Whether the dataset service looked it up for a run.
    """

    id: int
    digest: str
    state: SetState
    document_count: int
    embedded_count: int
    failures: int
    failure: str
    model_digest: str
    is_entered: bool

    @property
    def collection(self) -> str:
        """The name of its vectors. It holds all that makes vectors differ, and never comes back."""
        return f"{self.digest}.{self.model_digest[:16]}.{self.id}"

    @property
    def is_embedding(self) -> bool:
        """Whether its vectors are still being computed."""
        return self.state is SetState.EMBEDDING


@dataclass(frozen=True, slots=True)
class DocumentSet:
    """An owner's name for a content.

    Attributes:
        alias: The owner's name for it, the seed's hash.
        owner: Whose it is.
        content: What it names.
        create_time: When it was named.
    """

    alias: str
    owner: str
    content: Content
    create_time: datetime


def check_searchable(content: Content, name: str, model_digest: str) -> None:
    """Refuse to search what has no vectors of this model.

    Raises:
        FailedPrecondition: It is still being embedded, or it could not be, or another model
            embedded it.
    """
    if content.model_digest != model_digest:
        raise FailedPrecondition(
            reasons.ERROR_REASON_DOCUMENT_SET_NOT_READY,
            f"dataset_hash: the document set {name} has vectors of another model than this "
            "service's; search when it is embedded by this one",
            retry_after=1.0,
            state=content.state,
            model_digest=content.model_digest,
        )
    if content.state is SetState.READY:
        return
    if content.state is SetState.FAILED:
        raise FailedPrecondition(
            reasons.ERROR_REASON_DOCUMENT_SET_NOT_READY,
            f"dataset_hash: the document set {name} could not be embedded ({content.failure}); "
            "create it again to try once more",
            state=content.state,
        )
    raise FailedPrecondition(
        reasons.ERROR_REASON_DOCUMENT_SET_NOT_READY,
        f"dataset_hash: {content.embedded_count} of {content.document_count} documents of the set "
        f"{name} are embedded so far; search when its state is ready",
        retry_after=1.0,
        state=content.state,
        embedded_count=str(content.embedded_count),
        document_count=str(content.document_count),
        model_digest=content.model_digest,
    )


def vectors_lost(name: str) -> FailedPrecondition:
    """What a caller learns whose set has lost its vectors, outside of this service."""
    return FailedPrecondition(
        reasons.ERROR_REASON_DOCUMENT_SET_NOT_READY,
        f"dataset_hash: the vectors of the document set {name} were lost and are computed again; "
        "search when its state is ready",
        retry_after=1.0,
        state=SetState.EMBEDDING,
    )


def not_found(field: str, name: str) -> NotFound:
    """What a caller learns of a set that does not exist or is somebody else's.

    Args:
        field: The request's field that names it.
        name: What stands there.
    """
    return NotFound(
        reasons.ERROR_REASON_DOCUMENT_SET_NOT_FOUND,
        f"{field}: you have no document set under the name or digest {name}; ListDatasets gives "
        "yours",
        dataset_hash=name,
    )


def deleted_meanwhile() -> Aborted:
    """What a caller learns whose set is deleted under another name at the same moment."""
    return Aborted(
        reasons.ERROR_REASON_UNAVAILABLE,
        "list: the same content was deleted at this moment; send the call again",
    )


def other_content(alias: str, digest: str) -> AlreadyExists:
    """What a caller learns who names a second content alike."""
    return AlreadyExists(
        reasons.ERROR_REASON_DOCUMENT_SET_EXISTS,
        f"hash: your document set {alias} has other content; choose another name, or delete that "
        "set",
        hash=alias,
        digest=digest,
    )


def entered(alias: str) -> FailedPrecondition:
    """What an owner learns who would delete what a pool uses."""
    return FailedPrecondition(
        reasons.ERROR_REASON_DOCUMENT_SET_ENTERED,
        f"hash: the document set {alias} is entered in a pool, whose answers rest on it; keep it",
        hash=alias,
    )
