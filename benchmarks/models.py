"""The models and questions that the benchmark programs run on."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from evalpool.models import ModelStore, ensure, find_model
from evalpool_worker.engine.base import ChoiceQuestion

SIQA = Path(__file__).parents[2] / "shared" / "data" / "siqa"
_STORE = Path(__file__).parents[1] / ".models"


def smollm2_path() -> Path:
    """SmolLM2 as it is shipped (Q4_1), from the store that the tests use too."""
    store = ModelStore(Path(os.environ.get("EVALPOOL_TEST_STORE", _STORE)))
    return ensure(store, find_model("SmolLM2-135M-Instruct.Q4_1"))


def read_siqa(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Social IQa's rows and lm-evaluation-harness's results for them."""
    if not folder.is_dir():
        raise SystemExit(f"Social IQa is not in {folder}. Name its folder with --siqa.")
    rows, reference = (
        [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]
        for name in ("dev-1000.jsonl", "reference-smollm2-1000.jsonl")
    )
    return rows, reference


def anew(rows: list[dict[str, Any]], number: int) -> list[dict[str, Any]]:
    """The rows as nobody has asked them yet: what has been scored once is not computed again."""
    return [row | {"context": f"({number}) {row['context']}"} for row in rows]


def question(row: dict[str, Any], number: int) -> ChoiceQuestion:
    """A row as lm-evaluation-harness's task `social_iqa` asks it."""
    return ChoiceQuestion(
        id=str(number),
        prompt=f"Q: {row['context']} {row['question']}\nA:",
        choices=tuple(" " + answer for answer in answers(row)),
    )


def answers(row: dict[str, Any]) -> tuple[str, str, str]:
    """The three answers, without the delimiter."""
    return row["answerA"], row["answerB"], row["answerC"]
