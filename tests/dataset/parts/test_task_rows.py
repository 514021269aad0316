"""What a client says of a task's rows before it sends them is what the service would say."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from evalpool.tasks import problems_of
from evalpool_dataset.loaders.reading import Row
from evalpool_dataset.parts.free_rows import GenerationRows
from evalpool_dataset.parts.question_rows import QuestionRows
from evalpool_dataset.parts.rows import ContinuationRows, EndingRows

CASES: list[tuple[QuestionRows, dict[str, object]]] = [
    (GenerationRows(), {"prompt": "p", "expected": "e"}),
    (GenerationRows(), {"prompt": "p", "expected": ["e"] * 1000, "choices": ["a", "a"]}),
    (GenerationRows(), {"prompt": "", "expected": "\n"}),
    (GenerationRows(), {"prompt": "p\0", "expected": ["e", " ", "\udfff"]}),
    (GenerationRows(), {"prompt": "p", "expected": []}),
    (GenerationRows(), {"prompt": "p", "expected": ["e"] * 1001}),
    (GenerationRows(), {"prompt": "p", "expected": "e", "choices": ["a"]}),
    (ContinuationRows(), {"prompt": "p", "choices": ["a"] * 26, "answer_index": 0}),
    (ContinuationRows(), {"prompt": "p", "choices": ["a"] * 27, "answer_index": 0}),
    (ContinuationRows(), {"prompt": "p", "choices": ["a", ""], "answer_index": 0}),
    (EndingRows(), {"choices": ["a", "b"], "ending": " c", "answer_index": 1}),
    (EndingRows(), {"choices": ["a"], "ending": " ", "answer_index": 0}),
]


@pytest.mark.parametrize(("loader", "row"), CASES)
def test_client_and_service_refuse_the_same_fields(
    loader: QuestionRows, row: Mapping[str, object]
) -> None:
    parsed = loader.parse(Row(1, row), 1)
    refused = [problem.field for problem in parsed] if isinstance(parsed, list) else []
    assert sorted(field for field, _ in problems_of(row)) == sorted(refused)
