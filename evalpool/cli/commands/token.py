"""`evalpool token`: the ledger."""

from __future__ import annotations

from typing import Annotated
from uuid import uuid4

import typer

from evalpool.cli.app import app, run
from evalpool.cli.failure import Failure
from evalpool.cli.options import DEFAULT_WALLET, Output, RequestId, Wallet, client_of
from evalpool.cli.output import (
    Format,
    console,
    enum_text,
    moment,
    print_fields,
    print_json,
    print_table,
    short,
)
from evalpool.cli.parties import party_address
from evalpool.common.v1.service_info_pb2 import Tag
from evalpool.token.v1 import token_pb2
from evalpool.wallet import Wallets

group = typer.Typer(help="The ledger: balances and transfers.", no_args_is_help=True)
app.add_typer(group, name="token")

Quantity = Annotated[str, typer.Argument(help="Whole units.")]
Recipient = Annotated[
    str, typer.Argument(help="An address, a wallet's name, or a service's name such as benchmark.")
]


@group.command()
def info(output: Output = Format.TABLE, wallet: Wallet = DEFAULT_WALLET) -> None:
    """Show the ledger's name, supply, address and limits."""

    async def work() -> token_pb2.GetInfoResponse:
        async with client_of(wallet) as client:
            return await client.token.GetInfo(token_pb2.GetInfoRequest())

    response = run(work())
    if output is Format.JSON:
        print_json(response)
        return
    print_fields(
        {
            "name": response.name,
            "ticker": response.ticker,
            "denomination": response.denomination,
            "supply": response.total_supply,
            "address": response.info.address,
            "operator": response.info.operator,
            "sequence": response.head_sequence,
            "head": response.head_hash,
        }
    )


@group.command()
def balance(
    account: Annotated[
        str,
        typer.Argument(
            help="A wallet of yours, or an address, for the operator. Default: the wallet that "
            "signs.",
            show_default=False,
        ),
    ] = "",
    output: Output = Format.TABLE,
    wallet: Wallet = DEFAULT_WALLET,
) -> None:
    """Show a balance."""
    # A wallet may see its own balance; anybody else would have to be the operator.
    signer = account if account in Wallets().names() else wallet

    async def work() -> token_pb2.GetBalanceResponse:
        async with client_of(signer) as client:
            whose = await party_address(client, account) if account else ""
            return await client.token.GetBalance(token_pb2.GetBalanceRequest(account=whose))

    response = run(work())
    if output is Format.JSON:
        print_json(response)
    else:
        print(response.balance)


@group.command()
def transfer(
    recipient: Recipient,
    quantity: Quantity,
    tag: Annotated[
        list[str] | None, typer.Option("--tag", "-t", help="NAME=VALUE; may be repeated.")
    ] = None,
    request_id: RequestId = "",
    output: Output = Format.TABLE,
    wallet: Wallet = DEFAULT_WALLET,
) -> None:
    """Transfer units, with tags if you like."""

    async def work() -> token_pb2.TransferResponse:
        async with client_of(wallet) as client:
            return await client.token.Transfer(
                token_pb2.TransferRequest(
                    recipient=await party_address(client, recipient),
                    quantity=quantity,
                    tags=[_tag(text) for text in tag or ()],
                    request_id=request_id or f"transfer-{uuid4()}",
                )
            )

    response = run(work())
    if output is Format.JSON:
        print_json(response)
        return
    sent = response.transfer
    console.print(f"transferred {sent.quantity} to {sent.recipient}", highlight=False)
    print_fields({"transfer": sent.id, "balance": response.balance})


@group.command()
def mint(
    recipient: Recipient,
    quantity: Quantity,
    request_id: RequestId = "",
    output: Output = Format.TABLE,
    wallet: Wallet = "operator",
) -> None:
    """Create units, as the operator."""

    async def work() -> token_pb2.MintResponse:
        async with client_of(wallet) as client:
            return await client.token.Mint(
                token_pb2.MintRequest(
                    recipient=await party_address(client, recipient),
                    quantity=quantity,
                    request_id=request_id or f"mint-{uuid4()}",
                )
            )

    response = run(work())
    if output is Format.JSON:
        print_json(response)
        return
    minted = response.transfer
    console.print(f"minted {minted.quantity} for {minted.recipient}", highlight=False)
    print_fields({"transfer": minted.id, "supply": response.total_supply})


@group.command()
def history(
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Transfers at most.")] = 50,
    output: Output = Format.TABLE,
    wallet: Wallet = DEFAULT_WALLET,
) -> None:
    """List your own transfers, newest first."""

    async def work() -> tuple[str, list[token_pb2.Transfer]]:
        found: list[token_pb2.Transfer] = []
        async with client_of(wallet) as client:
            page = ""
            while len(found) < limit:
                response = await client.token.ListTransfers(
                    token_pb2.ListTransfersRequest(
                        page_size=min(limit - len(found), 1000), page_token=page
                    )
                )
                found.extend(response.transfers)
                page = response.next_page_token
                if not page:
                    break
            return client.identity.address, found

    own, transfers = run(work())
    if output is Format.JSON:
        print_json(transfers)
        return
    print_table(
        [">sequence", "time (UTC)", ">quantity", "with", "transfer", "tags"],
        [
            (
                sent.sequence,
                moment(sent.commit_time),
                f"{'-' if sent.sender == own else '+'}{sent.quantity}",
                short((sent.recipient if sent.sender == own else sent.sender) or "the mint"),
                short(sent.id),
                " ".join(f"{t.name}={t.value}" for t in sent.tags),
            )
            for sent in transfers
        ],
    )


@group.command()
def hold(
    hold_id: Annotated[str, typer.Argument(metavar="HOLD", help="A hold's id.")],
    output: Output = Format.TABLE,
    wallet: Wallet = DEFAULT_WALLET,
) -> None:
    """Show what has become of a hold of yours, or for you."""

    async def work() -> token_pb2.HeldUnits:
        async with client_of(wallet) as client:
            return (await client.token.GetHold(token_pb2.GetHoldRequest(id=hold_id))).hold

    found = run(work())
    if output is Format.JSON:
        print_json(found)
        return
    print_fields(
        {
            "hold": found.id,
            "state": enum_text(token_pb2.HoldState.Name(found.state), "HOLD_STATE_"),
            "quantity": found.quantity,
            "captured": found.captured,
            "holder": found.holder,
            "recipient": found.recipient,
            "expires (UTC)": moment(found.expire_time),
        }
    )


def _tag(text: str) -> Tag:
    name, equals, value = text.partition("=")
    if not equals:
        raise Failure(f'--tag "{text}" has no "="; give NAME=VALUE')
    return Tag(name=name, value=value)
