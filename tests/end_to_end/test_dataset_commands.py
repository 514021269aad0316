"""`evalpool dataset` against a whole deployment, on a real model."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import uuid4

import pytest

from tests.end_to_end.conftest import SMOLLM2
from tests.evalpool.cli.commands import Cli

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def owner(cli: Cli) -> str:
    cli("wallet", "new", "owner")
    return "owner"


@pytest.fixture
def dataset(cli: Cli, owner: str, questions: Path) -> str:
    """A dataset of twelve questions by the wallet "owner"."""
    name = f"commands-{uuid4().hex[:8]}"
    cli("dataset", "create", name, "-w", owner)
    assert cli("dataset", "load", name, str(questions), "-w", owner).status == 0
    return name


def test_a_dataset_is_made_loaded_and_described(cli: Cli, owner: str, questions: Path) -> None:
    name = f"commands-{uuid4().hex[:8]}"
    terms = ("--title", "Twelve", "--metric", "acc_norm", "--license", "CC0-1.0")

    made = cli("dataset", "create", name, *terms, "-w", owner, "-o", "json").json
    assert (made["id"], made["title"], made["version"]) == (name, "Twelve", "")
    loaded = cli("dataset", "load", name, str(questions), "-w", owner).out
    assert loaded.startswith("loaded: 12 questions of the kind siqa, version ")
    again = cli("dataset", "load", name, str(questions), "-w", owner, "-o", "json").json
    assert (again["unchanged"], again["dataset"]["question_count"]) == (True, 12)

    info = cli("dataset", "info", name, "-o", "json").json
    assert (info["question_count"], info["metric"]) == (12, "METRIC_ACC_NORM")
    text = cli("dataset", "info", name).out
    for shown in (
        "Twelve",
        "siqa",
        "letter, loglikelihood",
        "acc_norm",
        "CC0-1.0",
        info["version"],
    ):
        assert shown in text
    listed = {each["id"]: each for each in cli("dataset", "list", "-o", "json").json}
    assert listed[name] == info
    assert name in cli("dataset", "list").out


def test_a_model_is_evaluated_and_each_choices_log_probability_is_shown(
    cli: Cli, dataset: str, owner: str, questions: Path
) -> None:
    evaluated = cli("dataset", "evaluate", dataset, SMOLLM2, "--wait", "-w", owner)
    assert evaluated.status == 0, evaluated.err
    for shown in ("complete", "12/12", "acc_norm", "acc_bytes"):
        assert shown in evaluated.out

    again = cli("dataset", "evaluate", dataset, SMOLLM2, "-w", owner, "-o", "json").json
    run = again["run"]
    assert (again["state"], again["done"]) == ("RUN_STATE_COMPLETE", 12)
    score = cli("dataset", "score", run, "--watch", "-w", owner, "-o", "json").json
    assert (score["correct"], score["total"]) == (again["correct"], 12)
    assert score["score"] == score["metrics"]["acc"] == score["correct"] / 12
    assert f"{score['score']:.4f}" in cli("dataset", "score", run, "-w", owner).out

    asked = [json.loads(line) for line in questions.read_text().splitlines()]
    lines = cli("dataset", "results", run, "-w", owner).out.splitlines()
    results = [json.loads(line) for line in lines]
    assert [each["question"] for each in results] == list(range(1, 13))
    assert [each["correct_answer"] for each in results] == [int(each["label"]) for each in asked]
    for each in results:
        sums = each["sum_logprobs"]
        assert len(sums) == 3
        assert max(sums) < 0
        # Of alike sums the first is the prediction.
        assert each["prediction"] == sums.index(max(sums)) + 1 == each["predictions"]["acc"]
        assert each["correct"] == (each["prediction"] == each["correct_answer"])
    assert sum(each["correct"] for each in results) == score["correct"]
    assert cli("dataset", "results", run, "-w", owner, "-o", "json").out.splitlines() == lines
    table = cli("dataset", "results", run, "-w", owner, "-o", "table").out
    assert "  ".join(f"{value:.3f}" for value in results[0]["sum_logprobs"]) in table


def test_labels_may_lie_in_a_file_of_their_own(
    cli: Cli, owner: str, questions: Path, tmp_path: Path
) -> None:
    name = f"commands-{uuid4().hex[:8]}"
    rows = [json.loads(line) for line in questions.read_text().splitlines()]
    labels = tmp_path / "dev-labels.lst"
    labels.write_text("".join(f"{row.pop('label')}\n" for row in rows))
    apart = tmp_path / "dev.jsonl"
    apart.write_text("".join(json.dumps(row) + "\n" for row in rows))
    cli("dataset", "create", name, "-w", owner)

    assert cli("dataset", "load", name, str(apart), "-w", owner).failure.endswith("[INVALID_ROWS]")
    loaded = cli("dataset", "load", name, str(apart), "--labels", str(labels), "-w", owner)
    assert loaded.out.startswith("loaded: 12 questions")
    whole = cli("dataset", "load", name, str(questions), "-w", owner).out
    assert whole.startswith("unchanged: 12 questions")


def test_a_model_answers_with_letters_too(cli: Cli, dataset: str, owner: str) -> None:
    evaluate = ("dataset", "evaluate", dataset, SMOLLM2, "--evaluator", "letter", "-w", owner)
    score = cli(*evaluate, "--wait", "-o", "json").json
    assert (score["evaluator"], score["done"]) == ("EVALUATOR_LETTER", 12)
    lines = cli("dataset", "results", score["run"], "-w", owner).out.splitlines()
    replies = [json.loads(line) for line in lines]
    assert {each["reply"].strip() for each in replies} <= set("ABC")
    # The answers were shown in an order of their own, so a letter is no place.
    assert {each["prediction"] for each in replies} <= {1, 2, 3}
    assert sum(each["correct"] for each in replies) == score["correct"]
    table = cli("dataset", "results", score["run"], "-w", owner, "-o", "table").out
    assert all(f" {letter} " in table for letter in {each["reply"].strip() for each in replies})


def test_rows_that_are_bad_are_shown_and_nothing_of_the_file_is_kept(
    cli: Cli, dataset: str, owner: str, tmp_path: Path
) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text('{"context": "c", "question": "q"}\n{"question": 1}\n')
    before = cli("dataset", "info", dataset, "-o", "json").json

    outcome = cli("dataset", "load", dataset, str(file), "-w", owner)
    error = cli("dataset", "load", dataset, str(file), "-w", owner, "-o", "json").error

    assert outcome.failure.endswith("[INVALID_ROWS]")
    places = [each["field"] for each in error["violations"]]
    assert {place.partition(".")[0] for place in places} == {"lines[1]", "lines[2]"}
    assert all(place in outcome.out for place in places)
    assert cli("dataset", "info", dataset, "-o", "json").json == before
    file.write_text("")
    empty = cli("dataset", "load", dataset, str(file), "-w", owner)
    assert empty.out == ""
    assert "has no questions" in empty.failure


def test_what_cannot_be_done_is_one_line_that_says_what_to_do(
    cli: Cli, dataset: str, owner: str, questions: Path, tmp_path: Path
) -> None:
    unnamed = tmp_path / "questions.txt"
    unnamed.write_bytes(questions.read_bytes())
    assert "--format" in cli("dataset", "load", dataset, str(unnamed), "-w", owner).failure
    as_lines = cli("dataset", "load", dataset, str(unnamed), "--format", "jsonl", "-w", owner)
    assert as_lines.out.startswith("unchanged: 12 questions")
    for command, reason in (
        (("info", "nowhere"), "DATASET_NOT_FOUND"),
        (("create", "No Name"), "INVALID_FIELD"),
        (("create", dataset), "DATASET_EXISTS"),
        (("create", "x", "--kind", "riddles"), "INVALID_FIELD"),
        (("load", "nowhere", str(questions)), "DATASET_NOT_FOUND"),
        (("load", dataset, str(questions)), "NOT_ALLOWED"),
        (("evaluate", dataset, SMOLLM2), "NOT_ALLOWED"),
        (("evaluate", dataset, "nothing", "-w", owner), "MODEL_NOT_FOUND"),
        (("score", "A" * 43), "RUN_NOT_FOUND"),
        (("results", "A" * 43), "RUN_NOT_FOUND"),
    ):
        assert cli("dataset", *command).failure.endswith(f"[{reason}]"), command
    assert cli("dataset", "load", dataset, str(tmp_path / "none.jsonl")).status == 2
