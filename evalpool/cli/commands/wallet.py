"""`evalpool wallet`: keys, addresses and bearer tokens."""

from __future__ import annotations

from typing import Annotated

import typer

from evalpool.cli.app import app, run
from evalpool.cli.failure import Failure
from evalpool.cli.options import DEFAULT_WALLET, Output, client_of
from evalpool.cli.output import Format, console, print_json, print_table
from evalpool.endpoints import PORTS
from evalpool.values import InvalidValue, parse_address
from evalpool.wallet import AddressBook, Wallets

group = typer.Typer(help="Keys, addresses and bearer tokens.", no_args_is_help=True)
app.add_typer(group, name="wallet")

Name = Annotated[str, typer.Argument(help="The wallet's name.")]


@group.command()
def new(name: Name, output: Output = Format.TABLE) -> None:
    """Make a wallet."""
    address = Wallets().new(name).address
    if output is Format.JSON:
        print_json({"name": name, "address": address})
    else:
        console.print(f"made the wallet {name}: {address}")


@group.command("list")
def list_wallets(output: Output = Format.TABLE) -> None:
    """List the wallets."""
    wallets = Wallets()
    rows = [(name, wallets.get(name).address) for name in wallets.names()]
    if output is Format.JSON:
        print_json([{"name": name, "address": address} for name, address in rows])
    else:
        print_table(["name", "address"], rows)


@group.command()
def address(name: Name = DEFAULT_WALLET, output: Output = Format.TABLE) -> None:
    """Print a wallet's address."""
    value = Wallets().get(name).address
    print_json({"name": name, "address": value}) if output is Format.JSON else print(value)


@group.command()
def token(
    audience: Annotated[
        str,
        typer.Option("--for", help=f"The server: {', '.join(PORTS)}, or an address."),
    ],
    name: Name = DEFAULT_WALLET,
    lifetime: Annotated[int, typer.Option(min=1, max=300, help="Seconds it is good for.")] = 120,
    output: Output = Format.TABLE,
) -> None:
    """Print a bearer token, for `grpcurl -H "authorization: Bearer …"`. One call, one token."""
    identity = Wallets().get(name)

    async def server_address() -> str:
        async with client_of(name) as client:
            return await client.address(audience)

    try:
        target = run(server_address()) if audience in PORTS else parse_address(audience)
    except InvalidValue as error:
        raise Failure(
            f'"{audience}" is no address and no service; the services are {", ".join(PORTS)}'
        ) from error
    value = identity.token(target, lifetime=lifetime)
    print_json({"token": value, "audience": target}) if output is Format.JSON else print(value)


@group.command()
def forget(
    endpoint: Annotated[str, typer.Argument(help="host:port of a server, as you met it.")],
    output: Output = Format.TABLE,
) -> None:
    """Forget the address of a server, to trust the next one there."""
    if not AddressBook().forget(endpoint):
        raise Failure(f"no server at {endpoint} is known; nothing to forget")
    if output is Format.JSON:
        print_json({"endpoint": endpoint})
    else:
        console.print(f"forgot the server at {endpoint}")
