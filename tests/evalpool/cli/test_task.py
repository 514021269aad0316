"""A task file of lm-evaluation-harness from the command line to what workers are asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import yaml

from evalpool.wallet import Wallets
from tests.dataset.dataset_harness import MODEL, DatasetHarness, running_dataset
from tests.dataset.router_double import RouterDouble
from tests.evalpool.background import Background
from tests.evalpool.cli.commands import Cli, Outcome
from tests.evalpool.tasks.lm_eval_files import (
    PROMPTS,
    SYSTEM_PROMPT,
    WRITTEN,
    rows,
    task_file,
)


def served(
    tmp_path: Path, background: Background, monkeypatch: pytest.MonkeyPatch, **settings: object
) -> Iterator[DatasetHarness]:
    """A dataset service that the commands find, on a herd that answers at once."""
    stack = AsyncExitStack()

    async def begin() -> DatasetHarness:
        router = await stack.enter_async_context(RouterDouble.knowing(MODEL))
        # Of letters, and of beginnings of the same length, one is likelier too.
        router.sums = lambda prompt, choice: -float(sum((prompt[-8:] + choice).encode()))
        service = running_dataset(tmp_path / "dataset", router, **settings)
        return await stack.enter_async_context(service)

    harness: DatasetHarness = background.do(begin())
    monkeypatch.setenv("EVALPOOL_DATASET", harness.service.endpoint)
    Wallets().add("owner", tmp_path / "dataset" / "people" / "owner.json")
    yield harness
    background.do(stack.aclose())


@pytest.fixture
def dataset(
    home: Path, tmp_path: Path, background: Background, monkeypatch: pytest.MonkeyPatch
) -> Iterator[DatasetHarness]:
    """A dataset service."""
    yield from served(tmp_path, background, monkeypatch)


@pytest.fixture
def narrow_dataset(
    home: Path, tmp_path: Path, background: Background, monkeypatch: pytest.MonkeyPatch
) -> Iterator[DatasetHarness]:
    """One that takes files of 100 bytes."""
    yield from served(tmp_path, background, monkeypatch, max_file_bytes=100)


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


@pytest.mark.parametrize("shots", ["0", "5"])
def test_models_are_asked_to_write_what_the_harness_asks(
    cli: Cli, tmp_path: Path, dataset: DatasetHarness, shots: str
) -> None:
    made = cli(
        "dataset", "import", "mine", str(task_file("gsm8k")), "--shots", shots, "-w", "owner",
        "--seed", "7", "--max-tokens", "99", "--temperature", "0.50", *data_of("gsm8k", tmp_path),
    )  # fmt: skip
    assert made.out.startswith("loaded: 3 questions of the kind generation, version ")
    replies = {
        "jars": " 3 * 12 = 36\n#### 36",
        "printer": " That is 1245.",
        "Tom": " I cannot say.",
    }
    dataset.router.reply = lambda turn: next(
        reply for word, reply in replies.items() if word in turn.rpartition("Question:")[2]
    )
    outcome = cli("dataset", "evaluate", "mine", MODEL, "--wait", "-w", "owner", "-o", "json")
    assert outcome.status == 0, outcome.err
    assert outcome.json["score"] == pytest.approx(1 / 3)

    wanted = WRITTEN[f"gsm8k/{shots}"]
    assert {request.prompt for request in dataset.router.inferred} == {
        each["plain"] for each in wanted
    }
    for request in dataset.router.inferred:
        sampling = request.sampling
        assert list(sampling.stop) == wanted[0]["kwargs"]["until"]
        assert (sampling.max_tokens, sampling.seed, sampling.temperature) == (99, 7, 0.5)
    shown = cli("dataset", "info", "mine", "-o", "json", "-w", "owner").json
    assert shown["evaluator"] == "EVALUATOR_EXACT_MATCH"
    assert [each["name"] for each in shown["filters"]] == ["strict-match", "flexible-extract"]
    drawn = {"number": 5, "sampler": "default", "seed": 1234, "split": "train"}
    none = {"number": 0, "sampler": "", "seed": 0, "split": ""}
    assert shown["few_shot"] == (drawn if shots == "5" else none)


def test_a_chat_template_makes_prompts_turns(
    cli: Cli, tmp_path: Path, dataset: DatasetHarness
) -> None:
    file = tmp_path / "system.txt"
    file.write_text(SYSTEM_PROMPT)
    cli(
        "dataset", "import", "mine", str(task_file("nq_open")), "--chat-template", "--shots", "2",
        "--system-prompt", f"@{file}", "-w", "owner", *data_of("nq_open", tmp_path),
    )  # fmt: skip
    outcome = cli("dataset", "evaluate", "mine", MODEL, "--wait", "-w", "owner")
    assert outcome.status == 0, outcome.err
    wanted = [each["chat_system"] for each in WRITTEN["nq_open/2"]]
    asked = {
        (request.system_prompt, *(turn.content for turn in request.chat.messages))
        for request in dataset.router.inferred
    }
    assert asked == {tuple(turn["content"] for turn in conversation) for conversation in wanted}


def test_the_same_task_again_changes_nothing_and_other_rows_are_a_new_version(
    cli: Cli, tmp_path: Path, dataset: DatasetHarness
) -> None:
    command = ["dataset", "import", "mine", str(task_file("triviaqa")), "-w", "owner"]
    command += data_of("triviaqa", tmp_path)
    first = cli(*command)
    assert first.out.startswith("loaded: 3 questions of the kind generation")
    assert cli(*command).out.replace("unchanged", "loaded") == first.out
    with (tmp_path / "triviaqa-validation.jsonl").open("a") as file:
        file.write(json.dumps(rows("triviaqa")["train"][3]) + "\n")
    assert cli(*command).out.startswith("loaded: 4 questions of the kind generation")


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("triviaqa", ["--shots", "1"], "mine: few_shot.number: it is 0 in the dataset, and 1 in"),
        ("triviaqa", ["--max-tokens", "9"], "mine: reply.max_tokens: it is 256 in the dataset"),
        (
            "triviaqa",
            ["--seed", "1"],
            "mine: reply.seed: it is 0 in the dataset, and 1 in the",
        ),
        (
            "triviaqa",
            ["--chat-template"],
            "mine: reply.form: it is PROMPT_FORM_PLAIN in the dataset",
        ),
        ("nq_open", [], "mine: exact_match.regexes_to_ignore: the dataset has others"),
        ("gsm8k", ["--shots", "0"], "mine: reply.stop: the dataset has others than the task"),
        (
            "piqa",
            [],
            "mine: kind: it is generation in the dataset, and continuation in the",
        ),
    ],
)
def test_a_dataset_keeps_its_parameters(
    cli: Cli,
    tmp_path: Path,
    dataset: DatasetHarness,
    task: str,
    options: list[str],
    message: str,
) -> None:
    made = cli(
        "dataset", "import", "mine", str(task_file("triviaqa")), "-w", "owner",
        *data_of("triviaqa", tmp_path),
    )  # fmt: skip
    outcome = cli(
        "dataset", "import", "mine", str(task_file(task)), "-w", "owner",
        *data_of(task, tmp_path), *options,
    )  # fmt: skip
    assert message in outcome.failure
    shown = cli("dataset", "info", "mine", "-o", "json", "-w", "owner").json
    assert shown["version"].startswith(made.out.split()[-1].rstrip("…"))


def test_what_is_compared_is_a_parameter_too(
    cli: Cli, tmp_path: Path, dataset: DatasetHarness
) -> None:
    (tmp_path / "rows.jsonl").write_text('{"q": "Why?", "a": "So"}\n')

    def imported(**changes: object) -> Outcome:
        task = {
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": "rows.jsonl"}},
            "test_split": "test",
            "doc_to_text": "q",
            "doc_to_target": "a",
            **changes,
        }
        (tmp_path / "own.yaml").write_text(yaml.safe_dump(task))
        return cli("dataset", "import", "own", str(tmp_path / "own.yaml"), "-w", "owner")

    assert imported().out.startswith("loaded: 1 questions of the kind generation")
    strip = {"name": "s", "filter": [{"function": "remove_whitespace"}, {"function": "take_first"}]}
    assert "own: filters: the dataset has others than" in imported(filter_list=[strip]).failure
    metric = {"metric": "exact_match", "ignore_case": True}
    message = "own: exact_match.ignore_case: it is False in the dataset, and True in the task"
    assert message in imported(metric_list=[metric]).failure
    metric = {"metric": "exact_match", "regexes_to_ignore": ["x"]}
    message = "own: exact_match.regexes_to_ignore: the dataset has others than the task"
    assert message in imported(metric_list=[metric]).failure
    assert imported().out.startswith("unchanged: ")


def test_rows_that_the_service_would_refuse_are_shown_and_nothing_is_made(
    cli: Cli, tmp_path: Path, dataset: DatasetHarness
) -> None:
    given = rows("triviaqa")["validation"]
    given[0]["answer"]["aliases"] = ["Port Lume", " "]
    given[2]["answer"]["aliases"] = ["x"] * 1001
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in given))
    outcome = cli(
        "dataset", "import", "mine", str(task_file("triviaqa")), "-w", "owner",
        "--data", f"validation={path}",
    )  # fmt: skip
    assert outcome.status == 1
    assert "rows[1].expected[1]" in outcome.out
    assert "rows[3].expected" in outcome.out
    assert outcome.err.startswith(
        "error: default.yaml: its questions have 2 problems; nothing was loaded. "
        "rows[1].expected[1]: it is empty"
    )
    assert "mine" not in cli("dataset", "list", "-w", "owner").out


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("piqa", ["--shots", "9"], "piqa.yaml: num_fewshot: there are only 6 rows to take 9 from"),
        ("piqa", ["--data", "validation"], "--data validation: write SPLIT=FILE"),
        ("piqa", ["--data", "validation=gone.jsonl"], "piqa.yaml: gone.jsonl: it cannot be read"),
        ("piqa", ["--max-tokens", "9"], "--max-tokens: nothing is written under multiple_choice"),
        ("piqa", ["--seed", "9"], "--seed: nothing is written under multiple_choice"),
        ("piqa", ["--chat-template"], "piqa.yaml: output_type: the choices of multiple_choice"),
        ("piqa", ["--metric", "f1"], "piqa.yaml: metric_list: 'f1' is not in it"),
        ("piqa", ["--system-prompt", "@gone"], "--system-prompt @gone: it cannot be read"),
        ("gsm8k", ["--temperature", "3"], "gsm8k.yaml: --temperature: 3 is no temperature"),
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


def test_a_task_that_wants_longer_replies_than_there_are_needs_another_number(
    cli: Cli, tmp_path: Path, dataset: DatasetHarness
) -> None:
    text = task_file("triviaqa").read_text()
    (tmp_path / "long.yaml").write_text(text.replace("  until:", "  max_gen_toks: 9999\n  until:"))
    command = ["dataset", "import", "mine", str(tmp_path / "long.yaml"), "-w", "owner"]
    command += data_of("triviaqa", tmp_path)
    message = "generation_kwargs.max_gen_toks: 9999 is more than 4096; give --max-tokens"
    assert message in cli(*command).failure
    assert cli(*command, "--max-tokens", "9").out.startswith("loaded: 3 questions")


def test_what_the_service_does_not_take_makes_nothing(
    cli: Cli, tmp_path: Path, dataset: DatasetHarness
) -> None:
    text = (
        task_file("triviaqa").read_text().replace("function: remove_whitespace", "function: regex")
    )
    regex = "function: regex\n        regex_pattern: '(a{1500})'"
    (tmp_path / "own.yaml").write_text(text.replace("function: regex", regex))
    outcome = cli(
        "dataset", "import", "mine", str(tmp_path / "own.yaml"), "-w", "owner",
        *data_of("triviaqa", tmp_path),
    )  # fmt: skip
    assert "filters[0].steps[0].regex.pattern: RE2 does not take it" in outcome.failure
    assert "mine" not in cli("dataset", "list", "-w", "owner").out


def test_a_dataset_that_was_made_and_not_loaded_is_told(
    cli: Cli, tmp_path: Path, narrow_dataset: DatasetHarness
) -> None:
    outcome = cli(
        "dataset", "import", "mine", str(task_file("gsm8k")), "-w", "owner",
        *data_of("gsm8k", tmp_path),
    )  # fmt: skip
    assert outcome.status == 1
    told = "mine was made, and has no questions yet; import it again to load them\n"
    assert outcome.err.startswith(f"{told}error: ")
    again = cli(
        "dataset", "import", "mine", str(task_file("gsm8k")), "-w", "owner",
        *data_of("gsm8k", tmp_path),
    )  # fmt: skip
    assert again.err.startswith("error: ")
