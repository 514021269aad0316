"""`evalpool pricing`: what inference costs."""

from __future__ import annotations

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
    print_fields(
        {
            "inference": "paid by a hold",
            "a request": f"{found.base_fee} units",
            "a token": f"{found.token_fee} units, of the prompt or generated",
            "multiplier": f"{found.last_multiplier} offered last; a higher one goes first",
            "a hold": f"lasts {found.hold_time.ToTimedelta()} for any request",
            "ledger": found.token_address,
        }
    )
