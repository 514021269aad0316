"""What is taken from replies and counted as right, beside what lm-evaluation-harness makes of them.

`benchmarks/peers/lm_eval_prompts.py` writes `lm_eval_filters.json`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evalpool.client.tasks import task_dataset
from evalpool.tasks import Written
from evalpool.values import Fields
from evalpool_dataset.parameter_requests import parse_exact_match, parse_filters
from tests.evalpool.tasks.lm_eval_files import task

CASES: dict[str, list[dict[str, Any]]] = json.loads(
    Path(__file__).with_name("lm_eval_filters.json").read_text()
)


@pytest.mark.parametrize("name", sorted(CASES))
def test_a_tasks_filters_take_and_count_what_the_harness_takes_and_counts(name: str) -> None:
    request = task_dataset("mine", task(name), Written("generation", "", 1, (), 0))
    fields = Fields()
    pipelines = parse_filters(fields, request.filters)
    comparison = parse_exact_match(fields, request.exact_match)
    fields.check()

    for case in CASES[name]:
        taken = {each.name: each.apply(case["reply"], case["choices"]) for each in pipelines}
        assert taken == case["extracted"], case["reply"]
        matches = {
            name: float(comparison.is_match(text, case["expected"])) for name, text in taken.items()
        }
        assert matches == case["exact_match"], case["reply"]
