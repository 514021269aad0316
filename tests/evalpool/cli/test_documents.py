"""`evalpool documents` and `search` against a real embedding service."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from evalpool.models import ModelStore, ensure, find_model
from evalpool_embedding.onnx_model import OnnxModel
from evalpool_embedding.service import SERVICE
from tests.evalpool.cli.commands import Cli
from tests.evalpool.service_thread import running_in_a_thread

ZOO = (
    {"content": "a cat", "meta": {"kind": "animal", "legs": 4, "tame": True}},
    {"content": "a tiger", "meta": {"kind": "animal", "legs": 4, "tame": False}},
    {"content": "a stool", "meta": {"kind": "thing", "legs": "4"}},
)


@pytest.fixture
def embedding(
    cli: Cli, tmp_path: Path, model_store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """An embedding service that the commands find, and a wallet."""
    for name in ("all-MiniLM-L6-v2-int8", "all-MiniLM-L6-v2-tokenizer"):
        ensure(model_store, find_model(name))
    settings: dict[str, Any] = {"models_dir": model_store.root}
    with running_in_a_thread(SERVICE, tmp_path / "embedding", **settings) as service:
        monkeypatch.setenv("EVALPOOL_EMBEDDING", service.endpoint)
        cli("wallet", "new")
        yield


def written(tmp_path: Path, documents: Sequence[object], name: str = "zoo.jsonl") -> str:
    path = tmp_path / name
    path.write_text("".join(f"{json.dumps(each)}\n" for each in documents))
    return str(path)


@pytest.mark.usefixtures("embedding")
def test_a_search_can_be_filtered_by_what_is_known_of_documents(cli: Cli, tmp_path: Path) -> None:
    cli("documents", "create", "zoo", written(tmp_path, ZOO))

    def found(*filters: str) -> list[str]:
        options = [part for each in filters for part in ("--filter", each)]
        return [each["content"] for each in cli("search", "zoo", "x", *options, "-o", "json").json]

    assert sorted(found()) == ["a cat", "a stool", "a tiger"]
    assert sorted(found("legs=4")) == ["a cat", "a tiger"]
    assert found('legs="4"') == ["a stool"]
    assert found("kind=animal", "tame=true") == ["a cat"]
    assert found("kind=plant") == []
    wrong = cli("search", "zoo", "x", "--filter", "legs")
    assert wrong.failure == "--filter: 'legs' is no NAME=VALUE; give one, such as title=two"


@pytest.mark.usefixtures("embedding")
def test_the_same_again_is_no_change_and_other_content_is_refused(cli: Cli, tmp_path: Path) -> None:
    first = cli("documents", "create", "zoo", written(tmp_path, ZOO), "-o", "json").json
    again = cli("documents", "create", "zoo", written(tmp_path, ZOO), "-o", "json").json

    assert again == first
    other = cli("documents", "create", "zoo", written(tmp_path, ZOO[:2], "other.jsonl"))
    assert other.failure.startswith("hash: ")
    assert other.failure.endswith("[DOCUMENT_SET_EXISTS]")


@pytest.mark.usefixtures("embedding")
def test_what_is_no_document_is_one_line_that_names_it(cli: Cli, tmp_path: Path) -> None:
    def failure(*documents: object) -> str:
        return cli("documents", "create", "zoo", written(tmp_path, documents)).failure

    assert failure({"content": "x"}, {"content": "x", "meta": "title"}).startswith(
        'zoo.jsonl is no list of {"content": …, "meta": {…}}: line 2: '
    )
    assert "line 1: it is longer than" in failure({"content": "x" * 2_000_000})
    empty = failure({"content": "x"}, {"content": ""})
    assert empty.startswith("list[1].content: it is empty; give at least 1 byte")
    assert failure().startswith("list: it has 0 documents; give 1 to 1000")
    nothing = failure({"content": "x", "meta": {"a": None, "b": float("nan")}})
    assert "list[0].meta.a: it is null" in nothing
    assert "list[0].meta.b: it is nan" in nothing
    assert cli("documents", "list", "-o", "json").json == []


@pytest.mark.usefixtures("embedding")
def test_a_set_that_cannot_be_embedded_is_a_failure(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_self: OnnxModel, _texts: Sequence[str]) -> None:
        raise MemoryError

    monkeypatch.setattr("evalpool_embedding.embedder.FAILED_PAUSE_SECONDS", 0.0)
    with monkeypatch.context() as patched:
        patched.setattr(OnnxModel, "encode", fail)
        failed = cli("documents", "create", "zoo", written(tmp_path, ZOO))
    assert failed.failure.startswith("the set zoo could not be embedded; ")

    again = cli("documents", "create", "zoo", written(tmp_path, ZOO))
    assert again.out.startswith("zoo: 3 documents, ready, digest ")
