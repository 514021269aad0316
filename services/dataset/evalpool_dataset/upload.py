"""What a client sends with LoadData, message by message."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

from evalpool.dataset.v1 import dataset_pb2
from evalpool.values import InvalidFields, Violation
from evalpool_runtime.errors import DomainError, InvalidRequest

MAX_CHUNK_BYTES = 1024 * 1024
SILENT_CLIENT_SECONDS = 0.5


class Upload:
    """The options, and then the bytes of the file.

    A context manager: where the file is refused within its block, what the client still sends is
    passed over first, because some clients lose the answer to a call that they still write to.

    Args:
        messages: What the client sends.
        most_bytes: Bytes after which it is answered all the same.
    """

    def __init__(
        self, messages: AsyncIterator[dataset_pb2.LoadDataRequest], most_bytes: int
    ) -> None:
        self._messages = aiter(messages)
        self._most_bytes = most_bytes

    async def options(self) -> dataset_pb2.LoadOptions:
        """The first message.

        Raises:
            InvalidRequest: It has no options.
        """
        first = await anext(self._messages, None)
        if first is None or not first.HasField("options"):
            raise _refused("options", "the first message has none; send the options first")
        return first.options

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bytes of the file.

        Raises:
            InvalidRequest: A message brings none, or too many.
        """
        async for message in self._messages:
            if message.HasField("options"):
                raise _refused("options", "they come twice; send them in the first message only")
            if not message.HasField("chunk"):
                raise _refused("chunk", "the message is empty; send bytes of the file")
            if len(message.chunk) > MAX_CHUNK_BYTES:
                raise _refused(
                    "chunk",
                    f"it has {len(message.chunk)} bytes; send at most {MAX_CHUNK_BYTES} at a time",
                )
            yield message.chunk

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, DomainError | InvalidFields):
            await self._pass_over()

    async def _pass_over(self) -> None:
        passed = 0
        while passed < self._most_bytes:
            reading = asyncio.ensure_future(self._next())
            done, _ = await asyncio.wait({reading}, timeout=SILENT_CLIENT_SECONDS)
            if not done:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
                return
            message = reading.result()
            if message is None:
                return
            passed += len(message.chunk)

    async def _next(self) -> dataset_pb2.LoadDataRequest | None:
        return await anext(self._messages, None)


def _refused(field: str, description: str) -> InvalidRequest:
    return InvalidRequest([Violation(field, description)])
