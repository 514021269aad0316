"""`evalpool status`: what the deployment is at."""

from __future__ import annotations

import asyncio

import grpc

from evalpool.cli.app import app, run
from evalpool.cli.herd import print_herd
from evalpool.cli.options import DEFAULT_WALLET, Output, Wallet, client_of
from evalpool.cli.output import Format, print_json, print_table
from evalpool.client import Client
from evalpool.endpoints import PORTS
from evalpool.router.v1 import router_pb2


@app.command()
def status(output: Output = Format.TABLE, wallet: Wallet = DEFAULT_WALLET) -> None:
    """Show which services answer, and what the herd is at.

    The operator's wallet shows it by model and by worker too.
    """

    async def work() -> tuple[list[dict[str, str]], router_pb2.GetStatisticsResponse | None]:
        async with client_of(wallet) as client:
            services = await asyncio.gather(*(_service(client, name) for name in PORTS))
            try:
                statistics = await client.router.GetStatistics(
                    router_pb2.GetStatisticsRequest(), timeout=5
                )
            except grpc.aio.AioRpcError:
                statistics = None
            return list(services), statistics

    services, statistics = run(work())
    if output is Format.JSON:
        print_json({"services": services, "herd": statistics})
        return
    print_table(
        ["service", "endpoint", "state", "address"],
        [(s["service"], s["endpoint"], s["state"], s["address"]) for s in services],
    )
    if statistics is not None:
        print_herd(statistics)


async def _service(client: Client, name: str) -> dict[str, str]:
    answer: dict[str, str] = {"service": name, "endpoint": client.endpoints.of(name), "address": ""}
    try:
        async with asyncio.timeout(3):
            answer["address"] = await client.ask_address(name)
        answer["state"] = "serving"
    except (grpc.aio.AioRpcError, TimeoutError):
        answer["state"] = "not reached"
    return answer
