"""What the tests of the worker's service ask."""

from __future__ import annotations

from collections.abc import AsyncIterable

import grpc
import pytest

from evalpool.errors import CallError
from evalpool.identity import Identity
from evalpool.inference.v1 import inference_pb2

ROUTER = Identity.generate()


def questions(count: int) -> list[inference_pb2.ChoiceQuestion]:
    return [
        inference_pb2.ChoiceQuestion(
            id=str(n),
            prompt=f"Q: Sam's friend number {n} fell. What will Sam do next?\nA:",
            choices=[" help the friend up", " eat the sun", " go"],
        )
        for n in range(count)
    ]


async def refusal(call: AsyncIterable[object]) -> CallError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in call:
            pass
    return CallError.of(caught.value)
