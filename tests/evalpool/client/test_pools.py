"""Funding: the tags of a pool's terms, and the wait for the decision."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from evalpool.benchmark.v1 import benchmark_pb2
from evalpool.client import Client
from evalpool.client.pools import PoolTerms, decision, fund
from evalpool.endpoints import Endpoints
from evalpool.token.v1 import token_pb2
from evalpool.wallet import AddressBook
from tests.benchmark.world import World, running_world


def test_terms_are_tags_and_what_is_not_said_is_none() -> None:
    terms = PoolTerms(dataset="siqa", max_entries_per_day="3", starts_at="2030-01-01T00:00:00Z")
    assert {tag.name: tag.value for tag in terms.tags()} == {
        "X-Dataset": "siqa",
        "X-Allocation": "ArithmeticDecrease",
        "X-Max-Entries-Per-Day": "3",
        "X-Starts-At": "2030-01-01T00:00:00Z",
    }


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with running_world(tmp_path) as made:
        yield made


@pytest.fixture
async def funder(world: World, tmp_path: Path) -> AsyncIterator[Client]:
    endpoints = Endpoints(token=world.token.endpoint, benchmark=world.benchmark.endpoint)
    who = await world.funder()
    async with Client(who, endpoints=endpoints, addresses=AddressBook(tmp_path / "home")) as made:
        yield made


async def balance(client: Client) -> int:
    response = await client.token.GetBalance(token_pb2.GetBalanceRequest())
    return int(response.balance)


async def test_the_decision_is_waited_for(funder: Client) -> None:
    funding = await fund(funder, "10", PoolTerms(dataset="siqa").tags())
    assert funding.state == benchmark_pb2.FUNDING_STATE_CREATED
    assert funding.pool == funding.transfer


async def test_a_refund_is_waited_for_until_it_is_there(funder: Client) -> None:
    before = await balance(funder)
    funding = await fund(funder, "10", PoolTerms(dataset="siqa", allocation="Lottery").tags())
    assert funding.state == benchmark_pb2.FUNDING_STATE_REFUNDED
    assert funding.refund_transfer
    assert await balance(funder) == before


async def test_after_the_patience_it_is_still_pending(funder: Client, world: World) -> None:
    world.dataset.set_reachable(False)
    funding = await fund(funder, "10", PoolTerms(dataset="siqa").tags(), patience=0.0)
    assert funding.state == benchmark_pb2.FUNDING_STATE_PENDING
    world.dataset.set_reachable(True)
    later = await decision(funder, funding.transfer)
    assert later.state == benchmark_pb2.FUNDING_STATE_CREATED


async def test_a_transfer_that_the_service_never_hears_of_stays_pending(funder: Client) -> None:
    funding = await decision(funder, "A" * 43, patience=0.0)
    assert funding.state == benchmark_pb2.FUNDING_STATE_PENDING
