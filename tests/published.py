"""Questions that tests score, with what lm-evaluation-harness made of them.

The samples that ship with the project are always there. Social IQa is not ours to ship: where it
lies beside the repository, tests marked `social_iqa` run on it too; elsewhere they are deselected,
and the report says so.

The scores are of lm-evaluation-harness 0.4.13, `--model hf` with the weights of
SmolLM2-135M-Instruct.Q4_1.gguf as 32-bit floats, of its task `social_iqa`. The samples' are made by
`python -m tests.published`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
SOCIAL_IQA_FOLDER = REPOSITORY.parent / "shared" / "data" / "siqa"


@dataclass(frozen=True, slots=True)
class Published:
    """A file of questions and the file of scores beside it.

    Attributes:
        questions: JSON Lines in the form of Social IQa, with the label inside.
        scores: A line a question: each choice's sum of log-probabilities, and the choice by metric.
        seed_form: The first of them as the seed loads them; None where no such file is published.
        seed_count: How many those are.
        count: How many questions.
        with_apostrophes: How many of their lines have one.
        right: Right choices by metric.
    """

    questions: Path
    scores: Path
    seed_form: Path | None
    seed_count: int
    count: int
    with_apostrophes: int
    right: tuple[tuple[str, int], ...]

    def rows(self) -> list[dict[str, str]]:
        """The questions."""
        return _read(self.questions)

    def reference(self) -> list[dict[str, Any]]:
        """The scores."""
        return _read(self.scores)

    def as_the_seed_loads_it(self) -> bytes:
        """One JSON array, with the answer in `result`."""
        if self.seed_form is not None:
            return self.seed_form.read_bytes()
        rows = self.rows()
        for row in rows:
            row["result"] = row.pop("label")
        return json.dumps(rows, indent=1).encode()


EVERYDAY = Published(
    questions=REPOSITORY / "samples" / "everyday.jsonl",
    scores=Path(__file__).parent / "reference-smollm2-everyday.jsonl",
    seed_form=None,
    seed_count=156,
    count=156,
    with_apostrophes=104,
    right=(("acc", 72), ("acc_norm", 76), ("acc_bytes", 76)),
)
SOCIAL_IQA = Published(
    questions=SOCIAL_IQA_FOLDER / "dev-1000.jsonl",
    scores=SOCIAL_IQA_FOLDER / "reference-smollm2-1000.jsonl",
    seed_form=SOCIAL_IQA_FOLDER / "seed-form-200.json",
    seed_count=200,
    count=1000,
    with_apostrophes=308,
    right=(("acc", 359), ("acc_norm", 439), ("acc_bytes", 439)),
)

PUBLISHED = (
    pytest.param(EVERYDAY, id="everyday"),
    pytest.param(SOCIAL_IQA, id="social_iqa", marks=pytest.mark.social_iqa),
)
"""Both, for tests that are to hold on each."""


def left_out(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """The tests that cannot run here, because Social IQa is not there."""
    if SOCIAL_IQA_FOLDER.is_dir():
        return []
    return [item for item in items if item.get_closest_marker("social_iqa")]


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _make() -> None:
    """Let lm-evaluation-harness score the samples anew."""
    from benchmarks.models import question, smollm2_path
    from benchmarks.peers.lm_eval import loaded_lm_eval

    rows = EVERYDAY.rows()
    with loaded_lm_eval("hf", str(smollm2_path()), threads=1) as harness:
        scored = harness.score([question(row, number) for number, row in enumerate(rows)])
    with EVERYDAY.scores.open("w", encoding="utf-8") as file:
        for number, (row, sums) in enumerate(zip(rows, scored.sums, strict=True)):
            answers = [row[f"answer{letter}"] for letter in "ABC"]
            lengths = {
                "acc": [1] * 3,
                "acc_norm": [len(answer) for answer in answers],
                "acc_bytes": [len(answer.encode()) for answer in answers],
            }
            line: dict[str, Any] = {"row": number, "sum_logprob": [round(s, 4) for s in sums]}
            for metric, units in lengths.items():
                each = [s / unit for s, unit in zip(sums, units, strict=True)]
                line[f"{metric}_choice"] = each.index(max(each)) + 1
            file.write(json.dumps(line | {"label": int(row["label"])}) + "\n")


if __name__ == "__main__":
    _make()
