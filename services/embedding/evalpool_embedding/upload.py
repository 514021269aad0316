"""Takes in a set that comes in pieces. Nothing of it counts before its last document is there."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from datetime import datetime

from sqlalchemy import Connection

from evalpool.embedding.v1 import embedding_pb2 as pb
from evalpool.values import Fields
from evalpool_embedding.documents import ContentDigest, Document, parse_alias, parse_documents
from evalpool_embedding.messages import listed, set_message
from evalpool_embedding.store import sets, uploads
from evalpool_runtime.call import Call, current_call
from evalpool_runtime.clock import Clock
from evalpool_runtime.database import Database
from evalpool_runtime.errors import Aborted, reasons
from evalpool_runtime.replay import once

MAX_MESSAGE_BYTES = 3 * 1024 * 1024


async def receive(
    database: Database,
    clock: Clock,
    requests: AsyncIterator[pb.UploadDatasetRequest],
    *,
    model_digest: str,
    max_documents: int,
) -> AsyncGenerator[pb.DocumentSet, None]:
    """Store the documents of a stream, then name them as a set.

    Args:
        database: Where they are stored.
        clock: What time it is.
        requests: The stream.
        model_digest: The model that is to embed the set.
        max_documents: Documents in a set, at most.

    Yields:
        After each message, and once more after the last, what has come so far, without a digest;
        at the end the set.

    Raises:
        InvalidFields: A message breaks a rule; nothing of the stream is kept.
        AlreadyExists: The caller's set of this name has other content.
        Aborted: Nothing came for so long that the beginning was forgotten.
    """
    call = current_call()
    digest = ContentDigest()
    alias: str | None = None
    content_id: int | None = None
    so_far = pb.DocumentSet()
    try:
        async for request in requests:
            documents = _parse(request, digest.count, is_first=alias is None, most=max_documents)
            if alias is None:
                alias = request.hash
                content_id = await database.write(
                    lambda c: uploads.begin(c, model_digest, clock.now())
                )
            await _extend(database, content_id, documents, clock.now())
            digest.update(documents)
            so_far = pb.DocumentSet(
                hash=alias,
                owner=call.address,
                state=pb.DOCUMENT_SET_STATE_EMBEDDING,
                document_count=digest.count,
                model_digest=model_digest,
            )
            yield so_far
        if alias is None or content_id is None:
            fields = Fields()
            fields.refuse("list", "the stream ended without a message; send 1 document at least")
            fields.check()
            return
        # gRPC ends the requests of a broken call as it ends those of a finished one. Only a broken
        # one cannot be answered any more: what was cut off is cancelled here and not named.
        yield so_far
        yield await _finish(database, call, content_id, alias, digest.hexdigest(), clock.now())
    finally:
        # What was named is no upload any more, and stays.
        if content_id is not None:
            unfinished = content_id
            await database.write(lambda c: uploads.discard(c, unfinished))


def _parse(
    request: pb.UploadDatasetRequest, first: int, *, is_first: bool, most: int
) -> list[Document]:
    fields = Fields()
    if is_first:
        fields.parse("hash", parse_alias, request.hash)
    elif request.hash:
        fields.refuse(
            "hash", "it belongs into the stream's first message only; leave it empty in the others"
        )
    if request.ByteSize() > MAX_MESSAGE_BYTES:
        fields.refuse(
            "list",
            f"the message has {request.ByteSize()} bytes; send at most {MAX_MESSAGE_BYTES} at once",
        )
    if first + len(request.list) > most:
        fields.refuse(
            "list", f"a set has at most {most} documents here; divide it into several sets"
        )
    documents = parse_documents(fields, listed(request.list), first=first)
    fields.check()
    return documents


async def _extend(
    database: Database, content_id: int | None, documents: Sequence[Document], now: datetime
) -> None:
    if content_id is None:
        raise _forgotten()
    try:
        await database.write(lambda c: uploads.extend(c, content_id, documents, now))
    except LookupError as error:
        raise _forgotten() from error


async def _finish(
    database: Database, call: Call, content_id: int, alias: str, digest: str, now: datetime
) -> pb.DocumentSet:
    # A stream has no request to fingerprint: its name and digest stand for it.
    call.request = pb.UploadDatasetResponse(
        dataset=pb.DocumentSet(hash=alias, digest=digest, owner=call.address)
    )

    def finish(connection: Connection) -> pb.UploadDatasetResponse:
        named, _ = sets.finish_upload(connection, content_id, call.address, alias, digest, now)
        return pb.UploadDatasetResponse(dataset=set_message(named))

    try:
        return (await once(database, pb.UploadDatasetResponse, finish)).dataset
    except LookupError as error:
        raise _forgotten() from error


def _forgotten() -> Aborted:
    return Aborted(
        reasons.ERROR_REASON_UNAVAILABLE,
        "list: nothing came for so long that the beginning was forgotten; send the stream again",
    )
