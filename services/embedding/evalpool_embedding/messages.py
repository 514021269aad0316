"""Between the contract's messages and the domain's values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from google.protobuf.struct_pb2 import Struct, Value

from evalpool.embedding.v1 import embedding_pb2 as pb
from evalpool_embedding.documents import Document, Meta
from evalpool_embedding.sets import DocumentSet, SetState
from evalpool_runtime.protobuf import timestamp

_STATES = {
    SetState.EMBEDDING: pb.DOCUMENT_SET_STATE_EMBEDDING,
    SetState.READY: pb.DOCUMENT_SET_STATE_READY,
    SetState.FAILED: pb.DOCUMENT_SET_STATE_FAILED,
}


def struct_values(struct: Struct) -> dict[str, object]:
    """A Struct's values; the kinds that meta cannot hold become None, a list or a mapping."""
    return {name: _value(value) for name, value in struct.fields.items()}


def meta_struct(meta: Meta) -> Struct:
    """A document's meta as a Struct."""
    struct = Struct()
    struct.update(dict(meta))
    return struct


def listed(documents: Iterable[pb.Document]) -> list[tuple[str, Mapping[str, object]]]:
    """A request's documents as content and meta, not yet checked."""
    return [(each.content, struct_values(each.meta)) for each in documents]


def set_message(named: DocumentSet) -> pb.DocumentSet:
    """A set as the contract shows it."""
    return pb.DocumentSet(
        hash=named.alias,
        digest=named.content.digest,
        owner=named.owner,
        state=_STATES[named.content.state],
        document_count=named.content.document_count,
        embedded_count=named.content.embedded_count,
        create_time=timestamp(named.create_time),
        model_digest=named.content.model_digest,
        entered=named.content.is_entered,
    )


def result_message(index: int, similarity: float, document: Document) -> pb.SearchResult:
    """A document that was found."""
    return pb.SearchResult(
        content=document.content,
        meta=meta_struct(document.meta),
        similarity=similarity,
        index=index,
    )


def vector_messages(rows: Iterable[Sequence[float]]) -> list[pb.Vector]:
    """Vectors as the contract carries them."""
    return [pb.Vector(values=row) for row in rows]


def _value(value: Value) -> object:
    match value.WhichOneof("kind"):
        case "string_value":
            return value.string_value
        case "number_value":
            return value.number_value
        case "bool_value":
            return value.bool_value
        case "struct_value":
            return {}
        case "list_value":
            return []
    return None
