"""`evalpool model`: the herd's models, the local store, and quantisation."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from evalpool.cli.app import app, run
from evalpool.cli.commands.deployment import default_data
from evalpool.cli.failure import Failure
from evalpool.cli.options import DEFAULT_WALLET, Output, Wallet, client_of
from evalpool.cli.output import Format, errors, print_json, print_table, short
from evalpool.cli.progress import Tracker
from evalpool.client import models as herd
from evalpool.models import (
    QUANTISATIONS,
    CatalogueModel,
    ModelStore,
    catalogue,
    ensure,
    find_model,
    quantise,
)
from evalpool.router.v1 import router_pb2

T = TypeVar("T")

PAGE_SIZE = 1000

group = typer.Typer(help="Models: the herd's, and those on this machine.", no_args_is_help=True)
app.add_typer(group, name="model")

Store = Annotated[
    Path | None,
    typer.Option(
        "--store",
        file_okay=False,
        help="The folder of the local store. Default: that of `evalpool up`.",
        show_default=False,
    ),
]


@group.command("list")
def list_models(
    shipped: Annotated[
        bool, typer.Option("--catalogue", help="Show the shipped catalogue; needs no server.")
    ] = False,
    output: Output = Format.TABLE,
    wallet: Wallet = DEFAULT_WALLET,
) -> None:
    """List the herd's models."""
    if shipped:
        _print_catalogue(output)
        return

    async def work() -> list[router_pb2.Model]:
        found: list[router_pb2.Model] = []
        async with client_of(wallet) as client:
            page = ""
            while True:
                response = await client.router.ListModels(
                    router_pb2.ListModelsRequest(page_size=PAGE_SIZE, page_token=page)
                )
                found.extend(response.models)
                page = response.next_page_token
                if not page:
                    return found

    models = run(work())
    if output is Format.JSON:
        print_json(models)
        return
    print_table(
        ["model", ">size", "quantisation", ">context", "license", "owner", "digest"],
        [
            (
                m.name,
                _megabytes(m.size_bytes),
                m.quantisation,
                m.context_length or "",
                m.license,
                short(m.owner) or "the catalogue",
                _digest(m.digest),
            )
            for m in models
        ],
    )


@group.command()
def pull(
    name: Annotated[str, typer.Argument(help="The model's name in the catalogue.")],
    store: Store = None,
    output: Output = Format.TABLE,
) -> None:
    """Fetch a model of the catalogue into the local store."""
    model = find_model(name)
    path = _ensure(_open_store(store), model, quiet=output is Format.JSON)
    if output is Format.JSON:
        print_json({"name": model.name, "digest": path.name, "path": str(path)})
    else:
        print(f"digest  {path.name}\npath    {path}")


@group.command()
def push(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A GGUF file.")],
    name: Annotated[str, typer.Option(help="Its name. Default: the file's.")] = "",
    output: Output = Format.TABLE,
    wallet: Wallet = DEFAULT_WALLET,
) -> None:
    """Upload a GGUF file to the herd, going on where an earlier upload broke off."""
    if not file.stat().st_size:
        raise Failure(f"{file} is empty; give a whole GGUF file")

    async def work() -> tuple[str, router_pb2.UploadModelResponse]:
        with Tracker(f"sending {file.name}", quiet=output is Format.JSON, in_bytes=True) as tracker:
            async with client_of(wallet) as client:
                response = await herd.push(
                    client,
                    file,
                    name=name,
                    progress=lambda sent, size: tracker.show("", sent, size),
                )
                return client.identity.address, response

    own, response = run(work())
    if output is Format.JSON:
        print_json(response)
        return
    print(response.model.digest)
    owner = response.model.owner
    if not owner:
        errors.print(f"the catalogue has it, as {response.model.name}")
    elif owner != own:
        errors.print(f"it was pushed before by {owner}, who alone may use it")


@group.command("quantise")
def quantise_model(
    source: Annotated[str, typer.Argument(help="A model's name in the catalogue, or a GGUF file.")],
    kind: Annotated[str, typer.Argument(help=f"One of {', '.join(QUANTISATIONS)}.")],
    target: Annotated[Path, typer.Argument(dir_okay=False, help="The file to make.")],
    store: Store = None,
    output: Output = Format.TABLE,
) -> None:
    """Make a smaller model from a model."""
    quiet = output is Format.JSON
    if target.exists():
        raise Failure(f"{target} is there already; remove it, or name another file")
    path = Path(source)
    if not path.is_file():
        path = _ensure(_open_store(store), find_model(source), quiet=quiet)
    # Of an interrupted quantisation nothing is left.
    with tempfile.TemporaryDirectory(
        dir=target.absolute().parent, prefix=".quantise-", ignore_cleanup_errors=True
    ) as folder:
        draft = Path(folder) / target.name
        _in_thread(
            f"quantising {path.name[:40]} to {kind.upper()}",
            lambda: quantise(path, draft, kind),
            quiet=quiet,
        )
        digest = herd.sha256_of(draft)
        size = draft.stat().st_size
        draft.replace(target)
    if quiet:
        print_json({"path": str(target), "digest": digest, "size_bytes": size})
    else:
        print(f"digest  {digest}\npath    {target}")


def default_store() -> Path:
    """The local store unless told otherwise: that of `evalpool up`."""
    configured = os.environ.get("EVALPOOL_DATA")
    return (Path(configured) if configured else default_data()) / "models"


def _open_store(folder: Path | None) -> ModelStore:
    return ModelStore(folder or default_store())


def _ensure(store: ModelStore, model: CatalogueModel, *, quiet: bool) -> Path:
    with Tracker(f"fetching {model.name}", quiet=quiet, in_bytes=True) as tracker:
        return ensure(store, model, lambda done, total: tracker.show("", done, total))


def _in_thread(what: str, work: Callable[[], T], *, quiet: bool) -> T:
    """Run work that blocks in a thread, under a spinner; ctrl-C does not wait for it."""
    done: Future[T] = Future()

    def call() -> None:
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=call, name="quantise", daemon=True).start()
    if quiet or not errors.is_terminal:
        return done.result()
    with errors.status(what):
        return done.result()


def _print_catalogue(output: Format) -> None:
    if output is Format.JSON:
        print_json(
            [
                {
                    "name": m.name,
                    "kind": m.kind,
                    "source": str(m.source),
                    "digest": m.sha256,
                    "size_bytes": m.size_bytes,
                    "license": m.license,
                    "license_url": m.license_url,
                    "context_length": m.context_length,
                    "description": m.description,
                }
                for m in catalogue()
            ]
        )
        return
    print_table(
        ["model", "kind", ">size", ">context", "license", "digest"],
        [
            (
                m.name,
                m.kind,
                _megabytes(m.size_bytes or 0),
                m.context_length or "",
                m.license,
                _digest(m.sha256),
            )
            for m in catalogue()
        ],
    )


def _digest(digest: str | None) -> str:
    return short(digest) if digest else "known after a pull"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB" if size else ""
