"""A task file of lm-evaluation-harness from the command line to what workers are asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from evalpool.wallet import Wallets
from tests.dataset.dataset_harness import MODEL, DatasetHarness, running_dataset
from tests.dataset.router_double import RouterDouble
from tests.evalpool.background import Background
from tests.evalpool.cli.commands import Cli
from tests.evalpool.tasks.lm_eval_files import PROMPTS, rows, task_file


@pytest.fixture
def dataset(
    home: Path, tmp_path: Path, background: Background, monkeypatch: pytest.MonkeyPatch
) -> Iterator[DatasetHarness]:
    """A dataset service that the commands find, on a herd that answers at once."""
    stack = AsyncExitStack()

    async def begin() -> DatasetHarness:
        router = await stack.enter_async_context(RouterDouble.knowing(MODEL))
        # Of letters, and of beginnings of the same length, one is likelier too.
        router.sums = lambda prompt, choice: -float(sum((prompt[-8:] + choice).encode()))
        return await stack.enter_async_context(running_dataset(tmp_path / "dataset", router))

    harness: DatasetHarness = background.do(begin())
    monkeypatch.setenv("EVALPOOL_DATASET", harness.service.endpoint)
    Wallets().add("owner", tmp_path / "dataset" / "people" / "owner.json")
    yield harness
    background.do(stack.aclose())


def data_of(task: str, folder: Path) -> list[str]:
    """The rows of a task, as options of the command."""
    options = []
    for split, given in rows(task).items():
        path = folder / f"{task}-{split}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in given))
        options += ["--data", f"{split}={path}"]
    return options


@pytest.mark.parametrize("task", ["social_iqa", "mmlu_anatomy", "winogrande"])
@pytest.mark.parametrize("shots", ["0", "2"])
def test_workers_are_asked_what_the_harness_asks(
    cli: Cli, tmp_path: Path, dataset: DatasetHarness, task: str, shots: str
) -> None:
    made = cli(
        "dataset", "import", "mine", str(task_file(task)), "--shots", shots, "-w", "owner",
        *data_of(task, tmp_path),
    )  # fmt: skip
    assert made.status == 0, made.err
    assert made.out.startswith("loaded: 3 questions")
    outcome = cli("dataset", "evaluate", "mine", MODEL, "--wait", "-w", "owner")
    assert outcome.status == 0, outcome.err

    asked = {
        prompt + choice
        for request in dataset.router.scored
        for question in request.questions
        for prompt, choice in zip(
            question.prompts or [question.prompt] * len(question.choices),
            question.choices,
            strict=True,
        )
    }
    wanted = PROMPTS[f"{task}/{shots}"]
    assert asked == {"".join(pair) for question in wanted for pair in question["requests"]}


def test_a_task_is_imported_anew_as_another_version(
    cli: Cli, tmp_path: Path, dataset: DatasetHarness
) -> None:
    command = ["dataset", "import", "mine", str(task_file("piqa")), "-w", "owner"]
    command += data_of("piqa", tmp_path)
    cli(*command)
    assert cli(*command).out.startswith("unchanged: 3 questions")
    assert cli(*command, "--shots", "1").out.startswith("loaded: 3 questions")

    shown = cli("dataset", "info", "mine", "-o", "json", "-w", "owner").json
    assert shown["kind"] == "continuation"
    assert shown["title"] == "piqa"
    assert shown["metric"] == "METRIC_ACC"


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("piqa", ["--shots", "9"], "piqa.yaml: num_fewshot: there are only 6 rows to take 9 from"),
        ("piqa", ["--data", "validation"], "--data validation: write SPLIT=FILE"),
        ("piqa", ["--data", "validation=gone.jsonl"], "piqa.yaml: gone.jsonl: it cannot be read"),
    ],
)
def test_a_task_that_cannot_be_imported_is_refused_and_makes_nothing(
    cli: Cli,
    tmp_path: Path,
    dataset: DatasetHarness,
    task: str,
    options: list[str],
    message: str,
) -> None:
    outcome = cli(
        "dataset", "import", "mine", str(task_file(task)), "-w", "owner",
        *data_of(task, tmp_path), *options,
    )  # fmt: skip
    assert outcome.status == 1
    assert message in outcome.failure
    assert "mine" not in cli("dataset", "list", "-w", "owner").out
