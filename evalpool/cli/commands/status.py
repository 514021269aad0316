"""`evalpool status`: what the deployment is at."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc

from evalpool.cli.app import app, run
from evalpool.cli.options import DEFAULT_WALLET, Output, Wallet, client_of
from evalpool.cli.output import Format, console, print_fields, print_json, print_table, short
from evalpool.client import Client
from evalpool.endpoints import PORTS
from evalpool.router.v1 import router_pb2


@app.command()
def status(output: Output = Format.TABLE, wallet: Wallet = DEFAULT_WALLET) -> None:
    """Show which services answer, and what the herd is at."""

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
        _print_herd(statistics)


async def _service(client: Client, name: str) -> dict[str, str]:
    answer: dict[str, str] = {"service": name, "endpoint": client.endpoints.of(name), "address": ""}
    try:
        async with asyncio.timeout(3):
            answer["address"] = await client.ask_address(name)
        answer["state"] = "serving"
    except (grpc.aio.AioRpcError, TimeoutError):
        answer["state"] = "not reached"
    return answer


def _print_herd(found: router_pb2.GetStatisticsResponse) -> None:
    console.print()
    print_fields(
        {
            "workers": found.workers,
            "slots": f"{found.busy_slots} busy of {found.slots}",
            "queued": found.queued,
            "running": found.running,
            "completed": found.completed,
            "failed": found.failed,
            "rate": f"{found.completed_per_second:.1f}/s, {found.tokens_per_second:.0f} tokens/s",
        }
    )
    if found.worker_details:
        rows: list[tuple[Any, ...]] = [
            (
                short(w.address),
                w.endpoint,
                f"{w.busy_slots}/{w.slots}",
                w.outstanding_tokens,
                " ".join(short(m) for m in w.models),
                w.completed,
                w.failed,
                "draining" if w.draining else "",
            )
            for w in found.worker_details
        ]
        print_table(
            ["worker", "endpoint", ">slots", ">tokens", "models", ">done", ">failed", ""], rows
        )
