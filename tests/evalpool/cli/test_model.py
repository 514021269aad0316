"""`evalpool model`, with a real router where one is needed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from evalpool.cli.commands import model as command
from evalpool.models import ModelStore, catalogue, find_model, read_gguf, sha256_of
from evalpool.router.v1 import router_pb2
from evalpool_router.service import SERVICE
from evalpool_runtime.testing import ServiceUnderTest
from tests.evalpool.cli.commands import Cli
from tests.evalpool.models.gguf_writer import Gguf
from tests.evalpool.service_thread import running_in_a_thread

NAME = "SmolLM2-135M-Instruct.Q4_1"


@pytest.fixture
def router(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ServiceUnderTest]:
    with running_in_a_thread(SERVICE, tmp_path / "router") as service:
        monkeypatch.setenv("EVALPOOL_ROUTER", service.endpoint)
        yield service


def small_model(path: Path) -> Path:
    path.write_bytes(Gguf().to_bytes())
    return path


def test_the_catalogue_is_shown_without_a_server(cli: Cli) -> None:
    found = cli("model", "list", "--catalogue", "-o", "json").json
    assert [each["name"] for each in found] == [each.name for each in catalogue()]
    assert found[0]["digest"] == find_model(found[0]["name"]).sha256
    assert all(each["license"] and each["source"] for each in found)
    table = cli("model", "list", "--catalogue").out
    assert all(each.name in table for each in catalogue())


def test_a_file_that_was_pushed_is_listed(
    cli: Cli, router: ServiceUnderTest, tmp_path: Path
) -> None:
    file = small_model(tmp_path / "mine.gguf")

    assert cli("model", "push", str(file)).out == f"{sha256_of(file)}\n"

    again = cli("model", "push", str(file), "--name", "other", "-o", "json").json
    assert again["existed"]
    models = cli("model", "list", "-o", "json").json
    assert sha256_of(file) in [each["digest"] for each in models]
    table = cli("model", "list").out
    assert "mine" in table
    assert NAME in table


def test_who_pushes_what_is_there_already_is_told_whose_it_is(
    cli: Cli, router: ServiceUnderTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = small_model(tmp_path / "mine.gguf")
    assert cli("model", "push", str(file)).err == ""
    assert cli("model", "push", str(file)).err == ""
    cli("wallet", "new", "bob")
    owner = cli("wallet", "address").out.strip()

    pushed = cli("model", "push", str(file), "-w", "bob")

    assert pushed.out == f"{sha256_of(file)}\n"
    assert pushed.err == f"it was pushed before by {owner}, who alone may use it\n"

    async def known(*_: object, **__: object) -> router_pb2.UploadModelResponse:
        return router_pb2.UploadModelResponse(model=router_pb2.Model(name=NAME), existed=True)

    monkeypatch.setattr("evalpool.client.models.push", known)
    assert cli("model", "push", str(file)).err == f"the catalogue has it, as {NAME}\n"


def test_all_pages_are_listed(
    cli: Cli, router: ServiceUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = cli("model", "list", "-o", "json").json
    monkeypatch.setattr(command, "PAGE_SIZE", 2)
    assert len(at_once) > 2
    assert cli("model", "list", "-o", "json").json == at_once


def test_a_file_that_is_no_model_is_refused_in_one_line(
    cli: Cli, router: ServiceUnderTest, tmp_path: Path
) -> None:
    file = tmp_path / "no.gguf"
    file.write_bytes(b"no model")
    assert cli("model", "push", str(file)).failure.endswith("[INVALID_GGUF]")
    file.write_bytes(b"")
    assert cli("model", "push", str(file)).failure == f"{file} is empty; give a whole GGUF file"


def test_a_file_that_is_not_there_is_status_2(cli: Cli, tmp_path: Path) -> None:
    assert cli("model", "push", str(tmp_path / "no.gguf")).status == 2


def test_a_model_in_the_store_is_pulled_without_fetching(
    cli: Cli, model_store: ModelStore, smollm2_path: Path
) -> None:
    outcome = cli("model", "pull", NAME.lower(), "--store", str(model_store.root))
    assert outcome.out == f"digest  {find_model(NAME).sha256}\npath    {smollm2_path}\n"
    made = cli("model", "pull", NAME, "--store", str(model_store.root), "-o", "json").json
    assert made == {"name": NAME, "digest": smollm2_path.name, "path": str(smollm2_path)}


def test_the_default_store_is_that_of_a_deployment_on_this_machine(
    cli: Cli, tmp_path: Path, smollm2_path: Path
) -> None:
    ModelStore(tmp_path / "data" / "models").put_file(smollm2_path)
    made = cli("model", "pull", NAME, "-o", "json").json
    assert Path(made["path"]).is_relative_to(tmp_path / "data" / "models")


@pytest.mark.parametrize(
    "arguments", [("pull", "gpt-5"), ("quantise", "gpt-5", "Q4_0", "target.gguf")]
)
def test_an_unknown_name_is_one_line_with_the_known_ones(
    cli: Cli, arguments: tuple[str, ...]
) -> None:
    assert NAME in cli("model", *arguments).failure


def test_a_model_that_cannot_be_fetched_is_one_line(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.invalid")
    assert "hub.invalid" in cli("model", "pull", "phi-2-q4_k_m").failure


def test_a_store_that_cannot_be_made_is_one_line(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    failure = cli("model", "pull", NAME, "--store", str(tmp_path / "file" / "store")).failure
    assert str(tmp_path / "file") in failure


def test_a_quantised_model_is_smaller_and_its_digest_is_printed(
    cli: Cli, smollm2_path: Path, tmp_path: Path
) -> None:
    target = tmp_path / "small.gguf"
    made = cli("model", "quantise", str(smollm2_path), "q2_k", str(target), "-o", "json").json
    assert made["digest"] == sha256_of(target)
    assert made["size_bytes"] == target.stat().st_size < smollm2_path.stat().st_size
    read_gguf(target)
    assert [each.name for each in tmp_path.glob(".quantise*")] == []

    assert "already" in cli("model", "quantise", str(smollm2_path), "q2_k", str(target)).failure


def test_an_interrupted_quantisation_leaves_nothing(
    cli: Cli, smollm2_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(source: Path, target: Path, kind: str) -> None:
        target.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "quantise", interrupted)
    outcome = cli("model", "quantise", str(smollm2_path), "Q4_0", str(tmp_path / "small.gguf"))
    assert outcome.status == 130
    assert not list(tmp_path.glob("*.gguf")) + list(tmp_path.glob(".quantise*"))


def test_what_cannot_be_quantised_is_one_line_and_leaves_nothing(cli: Cli, tmp_path: Path) -> None:
    source = tmp_path / "no.gguf"
    source.write_bytes(b"no model")
    target = tmp_path / "out" / "small.gguf"
    target.parent.mkdir()
    assert "GGUF" in cli("model", "quantise", str(source), "Q4_0", str(target)).failure
    assert "no kind" in cli("model", "quantise", str(source), "Q9", str(target)).failure
    assert list(target.parent.iterdir()) == []
    missing = tmp_path / "missing" / "small.gguf"
    assert "No such file" in cli("model", "quantise", str(source), "Q4_0", str(missing)).failure
