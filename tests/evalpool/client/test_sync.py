"""The synchronous wrapper, against a real token service on another thread's event loop."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import grpc
import pytest

from evalpool.client import Client, SyncClient
from evalpool.endpoints import Endpoints
from evalpool.identity import Identity
from evalpool.token.v1 import token_pb2
from evalpool.wallet import AddressBook
from evalpool_runtime.testing import ServiceUnderTest
from evalpool_token.service import SERVICE
from tests.evalpool.service_thread import running_in_a_thread


@pytest.fixture
def token(tmp_path: Path) -> Iterator[ServiceUnderTest]:
    with running_in_a_thread(SERVICE, tmp_path / "token") as service:
        yield service


@pytest.fixture
def client(token: ServiceUnderTest, tmp_path: Path) -> Iterator[SyncClient]:
    with SyncClient(
        token.operator,
        endpoints=Endpoints(token=token.endpoint),
        addresses=AddressBook(tmp_path / "home"),
    ) as made:
        yield made


def mint(client: SyncClient, number: int) -> None:
    client.run(
        lambda c: c.token.Mint(
            token_pb2.MintRequest(
                recipient=c.identity.address, quantity="1", request_id=f"m{number}"
            )
        )
    )


def notices(client: Client) -> object:
    return client.token.WatchNotices(token_pb2.WatchNoticesRequest())


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


def test_a_call_gives_its_answer(client: SyncClient) -> None:
    response = client.run(lambda c: c.token.GetBalance(token_pb2.GetBalanceRequest()))
    assert response.balance == "0"


def test_a_calls_error_is_raised(client: SyncClient) -> None:
    with pytest.raises(grpc.aio.AioRpcError):
        client.run(lambda c: c.token.Transfer(token_pb2.TransferRequest()))


def test_a_stream_is_iterated_and_left_before_its_end(client: SyncClient) -> None:
    for number in range(3):
        mint(client, number)
    calls: list[Any] = []

    def watch(c: Client) -> Any:
        calls.append(notices(c))
        return calls[0]

    stream = client.iterate(watch)
    assert [message.notice.sequence for message in islice(stream, 3)] == [1, 2, 3]
    stream.close()  # type: ignore[attr-defined]

    assert calls[0].cancelled()


def test_a_stream_of_ones_own_ends_and_is_closed(client: SyncClient) -> None:
    closed = []

    async def numbers(_client: Client):  # type: ignore[no-untyped-def]
        try:
            for number in range(3):
                yield number
        finally:
            closed.append(1)

    assert list(client.iterate(numbers)) == [0, 1, 2]
    assert closed == [1]
    stream = client.iterate(numbers)
    assert next(stream) == 0
    stream.close()  # type: ignore[attr-defined]
    assert closed == [1, 1]


def test_nothing_is_left_after_closing(client: SyncClient) -> None:
    client.close()
    client.close()
    assert "evalpool-client" not in threads()


def test_nothing_is_left_where_there_is_no_such_wallet(tmp_path: Path) -> None:
    before = threads()
    with pytest.raises(TypeError):
        SyncClient(Identity.generate(), nonsense=1)
    assert threads() <= before
