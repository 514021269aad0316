"""`evalpool pricing`: what inference costs."""

from __future__ import annotations

from datetime import timedelta

from evalpool.cli.app import app, run
from evalpool.cli.options import DEFAULT_WALLET, Output, Wallet, client_of
from evalpool.cli.output import Format, print_fields, print_json
from evalpool.router.v1 import router_pb2


@app.command()
def pricing(output: Output = Format.TABLE, wallet: Wallet = DEFAULT_WALLET) -> None:
    """Show what inference on the herd costs, and what was offered to go first."""

    async def work() -> router_pb2.GetPricingResponse:
        async with client_of(wallet) as client:
            return await client.router.GetPricing(router_pb2.GetPricingRequest())

    found = run(work())
    if output is Format.JSON:
        print_json(found)
        return
    if not found.paid:
        print_fields({"inference": "free"})
        return
    seconds = found.hold_time.ToTimedelta() // timedelta(seconds=1)
    print_fields(
        {
            "inference": "paid by a hold",
            "a request": _units(found.base_fee),
            "a token": f"{_units(found.token_fee)}, of the prompt or generated",
            "multiplier": f"{found.last_multiplier} offered last; a higher one goes first",
            "a hold": f"of {seconds} s ({found.hold_time.ToTimedelta()}) is good for any request",
            "ledger": found.token_address,
        }
    )


def _units(quantity: str) -> str:
    return f"{quantity} unit" if quantity == "1" else f"{quantity} units"
