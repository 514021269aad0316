"""The client against a real token service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from evalpool.client import CallError, Client
from evalpool.endpoints import Endpoints
from evalpool.identity import Identity
from evalpool.token.v1 import token_pb2
from evalpool.wallet import AddressBook, AddressMismatch
from evalpool_runtime.testing import ServiceUnderTest, running
from evalpool_token.service import SERVICE


@pytest.fixture
async def token(tmp_path: Path) -> AsyncIterator[ServiceUnderTest]:
    async with running(SERVICE, tmp_path / "token") as service:
        yield service


@pytest.fixture
def book(tmp_path: Path) -> AddressBook:
    return AddressBook(tmp_path / "home")


def client(service: ServiceUnderTest, book: AddressBook, who: Identity | None = None) -> Client:
    return Client(
        who or Identity.generate(), endpoints=Endpoints(token=service.endpoint), addresses=book
    )


async def test_the_first_call_learns_the_servers_address(
    token: ServiceUnderTest, book: AddressBook
) -> None:
    async with client(token, book) as made:
        response = await made.token.GetBalance(token_pb2.GetBalanceRequest())
    assert response.balance == "0"
    assert book.get(token.endpoint) == token.address


async def test_calls_at_once_ask_for_the_address_once(
    token: ServiceUnderTest, book: AddressBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    ask = Client.ask_address

    async def counted(self: Client, service: str) -> str:
        asked.append(service)
        return await ask(self, service)

    monkeypatch.setattr(Client, "ask_address", counted)
    async with client(token, book) as made:
        await asyncio.gather(
            *(made.token.GetBalance(token_pb2.GetBalanceRequest()) for _ in range(10))
        )
    assert asked == ["token"]


async def test_a_server_with_another_key_than_before_is_refused(
    token: ServiceUnderTest, book: AddressBook
) -> None:
    book.learn(token.endpoint, Identity.generate().address)
    async with client(token, book) as made:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await made.token.GetBalance(token_pb2.GetBalanceRequest())
        assert CallError.of(caught.value).reason == "TOKEN_FOR_ANOTHER_SERVER"
        with pytest.raises(AddressMismatch):
            book.learn(token.endpoint, await made.ask_address("token"))


async def test_an_error_is_read_with_its_details(
    token: ServiceUnderTest, book: AddressBook
) -> None:
    async with client(token, book) as made:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await made.token.Transfer(token_pb2.TransferRequest(quantity="1.5"))
    error = CallError.of(caught.value)
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "quantity" in [violation.field for violation in error.violations]
    assert str(error) == error.message


async def test_a_client_can_be_closed_twice(token: ServiceUnderTest, book: AddressBook) -> None:
    made = client(token, book)
    await made.token.GetInfo(token_pb2.GetInfoRequest())
    await made.close()
    await made.close()
