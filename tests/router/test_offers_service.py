"""What callers offer to go first: a real router, a real ledger, and a worker that is a double."""

from __future__ import annotations

import asyncio

from evalpool.identity import Identity
from evalpool.router.v1 import router_pb2
from tests.router.market import Market
from tests.router.router_harness import RouterHarness, infer, text_of
from tests.waiting import until


async def under_way(router: RouterHarness, count: int) -> None:
    """Wait until so many requests wait or run."""
    stub = await router.operator()

    async def found() -> int:
        statistics = await stub.GetStatistics(router_pb2.GetStatisticsRequest())
        return statistics.queued + statistics.running

    await until(found, lambda number: number == count)


async def order(router: RouterHarness, market: Market) -> list[str]:
    """In what order the only slot serves three callers, of whom the last offers the most."""
    worker = await router.worker(slots=1)
    worker.open.clear()
    asked = []
    for prompt, multiplier in (("first", "1"), ("cheap", "1"), ("dear", "8")):
        await market.pay_with(Identity.generate())
        stub = await router.stub(market.payer)
        request = infer(prompt, hold=await market.hold(), multiplier=multiplier)
        asked.append(asyncio.create_task(text_of(stub, request)))
        await under_way(router, len(asked))
    worker.open.set()
    await asyncio.gather(*asked)
    return [request.prompt for request in worker.prompted]


async def last_multiplier(router: RouterHarness) -> str:
    stub = await router.stub(None)
    return (await stub.GetPricing(router_pb2.GetPricingRequest())).last_multiplier


async def test_a_higher_multiplier_goes_first(market: Market) -> None:
    async with market.router() as router:
        assert await order(router, market) == ["first", "dear", "cheap"]


async def test_where_inference_is_free_an_offer_weighs_nothing(market: Market) -> None:
    async with market.router(base_fee=0, token_fee=0) as router:
        assert await order(router, market) == ["first", "cheap", "dear"]
        assert await last_multiplier(router) == "1"


async def test_the_multiplier_that_was_dispatched_last_is_told_exactly(market: Market) -> None:
    async with market.router() as router:
        stub = await router.stub(market.payer)
        waiting = stub.Infer(infer(hold=await market.hold(), multiplier="3"))
        await under_way(router, 1)
        assert await last_multiplier(router) == "1"
        waiting.cancel()
        await under_way(router, 0)
        await router.worker()
        for multiplier in ("2500000.5", "900000000"):
            hold = await market.hold(10**14)
            await text_of(stub, infer(hold=hold, multiplier=multiplier))
            assert await last_multiplier(router) == multiplier


async def test_the_last_multiplier_outlasts_a_restart_while_there_are_prices(
    market: Market,
) -> None:
    async with market.router() as router:
        await router.worker()
        request = infer(hold=await market.hold(), multiplier="2.5")
        await text_of(await router.stub(market.payer), request)
    async with market.router() as router:
        assert await last_multiplier(router) == "2.5"
    async with market.router(base_fee=0, token_fee=0) as router:
        assert await last_multiplier(router) == "1"
