"""What a pool takes, entered by name: models, or one's own document sets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from evalpool.benchmark.v1 import benchmark_pb2
from evalpool.models import ModelStore, ensure, find_model
from evalpool.wallet import Wallets
from evalpool_embedding.service import SERVICE as EMBEDDING
from evalpool_router.service import SERVICE as ROUTER
from evalpool_runtime.testing import ServiceUnderTest
from tests.benchmark.world import DATASET_OWNER, World
from tests.evalpool.background import Background
from tests.evalpool.cli.commands import Cli
from tests.evalpool.service_thread import running_in_a_thread

RETRIEVAL = "questions-to-look-up"


@pytest.fixture
def embedding(
    home: Path, tmp_path: Path, model_store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ServiceUnderTest]:
    """The real embedding service, on the real model."""
    for name in ("all-MiniLM-L6-v2-int8", "all-MiniLM-L6-v2-tokenizer"):
        ensure(model_store, find_model(name))
    data = tmp_path / "embedding"
    with running_in_a_thread(EMBEDDING, data, models_dir=model_store.root) as service:
        monkeypatch.setenv("EVALPOOL_EMBEDDING", service.endpoint)
        yield service


@pytest.fixture
def router(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ServiceUnderTest]:
    with running_in_a_thread(ROUTER, tmp_path / "router") as service:
        monkeypatch.setenv("EVALPOOL_ROUTER", service.endpoint)
        yield service


async def pool_of_models(world: World) -> str:
    return await world.pool(await world.funder())


async def pool_of_sets(world: World) -> str:
    world.dataset.add_dataset(RETRIEVAL, DATASET_OWNER.address, graded=True, retrieval=True)
    return await world.pool(await world.funder(), dataset=RETRIEVAL)


def document_set(cli: Cli, folder: Path, name: str) -> str:
    """Make a document set of one's own; its digest."""
    file = folder / "documents.jsonl"
    file.write_text(json.dumps({"content": "Socks belong into the washing machine."}) + "\n")
    assert cli("documents", "create", name, str(file)).status == 0
    (made,) = cli("documents", "list", "-o", "json").json
    digest: str = made["digest"]
    return digest


def test_ones_own_document_set_is_entered_by_its_name_and_shown_with_its_points(
    cli: Cli,
    world: World,
    embedding: ServiceUnderTest,
    background: Background,
    tmp_path: Path,
) -> None:
    pool = background.do(pool_of_sets(world))
    digest = document_set(cli, tmp_path, "laundry")
    me = Wallets().get().address
    world.dataset.know_document_set(digest, "laundry", me)

    joined = cli("pool", "join", pool, "laundry", "-o", "json").json

    assert (joined["subject"], joined["subject_name"]) == (digest, "laundry")
    background.do(finish(world, digest, joined["id"]))
    shown = cli("pool", "entry", joined["id"]).out
    assert "87/100" in shown
    assert "0.8700" in shown
    board = cli("pool", "leaderboard", pool, "--live").out
    assert "document set" in board
    assert "87/100" in board
    assert "document sets" in cli("pool", "show", pool).out
    again = cli("pool", "join", pool, digest).failure
    assert again.endswith("[ALREADY_ENTERED]")


async def finish(world: World, digest: str, entry: str) -> None:
    """Have an entry's answers graded, once it has a run."""
    await world.entry_in(world.person(), entry, benchmark_pb2.ENTRY_STATE_QUEUED)
    await world.dataset.complete(digest, 3, 87)
    await world.entry_in(world.person(), entry, benchmark_pb2.ENTRY_STATE_SCORED)


@pytest.mark.parametrize("subject", ["SmolLM2-135M-Instruct.Q4_1", "./model.gguf"])
def test_a_model_in_a_pool_of_document_sets_fails_with_what_the_pool_takes(
    cli: Cli, world: World, embedding: ServiceUnderTest, background: Background, subject: str
) -> None:
    pool = background.do(pool_of_sets(world))

    failure = cli("pool", "join", pool, subject).failure

    assert failure.startswith(
        f"the pool takes document sets, and you have none called {subject}; `evalpool documents"
    )


def test_a_document_set_in_a_pool_of_models_fails_with_what_the_pool_takes(
    cli: Cli, world: World, router: ServiceUnderTest, background: Background
) -> None:
    pool = background.do(pool_of_models(world))
    me = Wallets().get().address
    documents = world.dataset.add_document_set(1, me)

    by_name = cli("pool", "join", pool, "laundry").failure
    by_digest = cli("pool", "join", pool, documents).failure

    assert by_name == (
        "the pool takes models, and the herd knows none called laundry; `evalpool model list` "
        "lists them, and `evalpool model push` uploads one [MODEL_NOT_FOUND]"
    )
    assert by_digest.startswith("subject: the pool takes models, and none with the digest")
    assert "models" in cli("pool", "show", pool).out


def test_a_set_that_is_still_being_embedded_fails_with_how_far_it_is(
    cli: Cli, world: World, background: Background
) -> None:
    pool = background.do(pool_of_sets(world))
    digest = world.dataset.add_document_set(1, "")
    world.dataset.embedding.add(digest)

    outcome = cli("pool", "join", pool, digest)

    assert "3 of 9 documents are embedded" in outcome.failure
    assert outcome.failure.endswith("[DOCUMENT_SET_NOT_READY]")
