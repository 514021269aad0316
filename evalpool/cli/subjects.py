"""What users may call a subject: its digest or its name; of a model also its file."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc

from evalpool.cli.failure import Failure
from evalpool.client import Client
from evalpool.client.models import sha256_of
from evalpool.common.v1.subject_kind_pb2 import SUBJECT_KIND_DOCUMENT_SET, SubjectKind
from evalpool.embedding.v1 import embedding_pb2
from evalpool.errors import CallError
from evalpool.router.v1 import router_pb2
from evalpool.values import InvalidValue, parse_digest

_NO_SUCH_NAME = frozenset({grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT})
"""What is answered about a name that nothing has, or that nothing can have."""


def subjects_text(kind: SubjectKind.ValueType) -> str:
    """What a pool takes, in words."""
    return "document sets" if kind == SUBJECT_KIND_DOCUMENT_SET else "models"


async def subject_digest(client: Client, kind: SubjectKind.ValueType, text: str) -> str:
    """The digest that a text stands for in a pool that takes subjects of a kind.

    Raises:
        grpc.aio.AioRpcError: It could not be looked up.
        Failure: There is none of that kind, or its digest is not known.
    """
    try:
        if kind == SUBJECT_KIND_DOCUMENT_SET:
            return await document_set_digest(client, text)
        return await model_digest(client, text)
    except grpc.aio.AioRpcError as error:
        if error.code() not in _NO_SUCH_NAME:
            raise
        raise Failure(_unknown(kind, text), reason=CallError.of(error).reason) from error


async def document_set_digest(client: Client, text: str) -> str:
    """The digest of one's own document set that a text stands for.

    Raises:
        grpc.aio.AioRpcError: The caller has no set of this name.
    """
    try:
        return parse_digest(text)
    except InvalidValue:
        request = embedding_pb2.GetDatasetRequest(dataset_hash=text)
    return (await client.embedding.GetDataset(request)).dataset.digest


async def model_digest(client: Client, text: str) -> str:
    """The digest that a text stands for.

    Raises:
        grpc.aio.AioRpcError: The router knows no model of this name.
        Failure: The catalogue does not know the model's digest.
    """
    try:
        return parse_digest(text)
    except InvalidValue:
        path = Path(text)
    if path.is_file():
        return await asyncio.to_thread(sha256_of, path)
    response = await client.router.GetModel(router_pb2.GetModelRequest(model=text))
    if not response.model.digest:
        raise Failure(
            f"the catalogue has no digest of {response.model.name}; get the file by `evalpool "
            f"model pull {response.model.name}`, then upload it by `evalpool model push FILE`"
        )
    return response.model.digest


def _unknown(kind: SubjectKind.ValueType, text: str) -> str:
    takes = f"the pool takes {subjects_text(kind)}"
    if kind == SUBJECT_KIND_DOCUMENT_SET:
        return (
            f"{takes}, and you have none called {text}; `evalpool documents list` lists yours, "
            "and `evalpool documents create` makes one"
        )
    return (
        f"{takes}, and the herd knows none called {text}; `evalpool model list` lists them, and "
        "`evalpool model push` uploads one"
    )
