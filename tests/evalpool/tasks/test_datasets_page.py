"""The task that `docs/datasets.md` shows is one that can be imported."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

from evalpool.tasks import Order, Pipeline, RegexStep, task_of, write_out

PAGE = Path(__file__).parents[3] / "docs" / "datasets.md"


def test_the_task_of_the_page_asks_what_it_says(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (tmp_path / "sums.yaml").write_text(text)
    (tmp_path / "train.jsonl").write_text('{"a": 1, "b": 2}\n{"a": 20, "b": 4}\n')
    (tmp_path / "test.jsonl").write_text('{"a": 3, "b": 4}\n')
    order = Order(str(tmp_path / "sums.yaml"))
    rows = io.BytesIO()
    assert write_out(order, rows).kind == "generation"
    assert json.loads(rows.getvalue()) == {
        "prompt": "Q: 1 + 2 = ?\nA: 3\n\nQ: 20 + 4 = ?\nA: 24\n\nQ: 3 + 4 = ?\nA:",
        "expected": "7",
    }
    generation = task_of(order).generation
    assert generation is not None
    assert generation.pipelines == (Pipeline("number", (RegexStep("(-?[0-9]+)", -1),)),)
