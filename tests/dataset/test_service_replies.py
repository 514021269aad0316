"""Replies that are written freely and compared with what is expected: `exact_match`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from evalpool.dataset.v1 import dataset_pb2
from tests.dataset.dataset_harness import (
    MODEL,
    DatasetHarness,
    evaluated,
    json_lines,
    refusal,
    results,
    running_dataset,
)
from tests.dataset.router_double import RouterDouble

REPLIES = {
    "Q: 3 + 4?": "3 + 4 = 7\n#### 7",
    "Q: 5 + 6?": "It is 11.",
    "Q: 1 + 1?": "#### 3",
}
QUESTIONS = json_lines(
    [
        {"prompt": "Q: 3 + 4?", "expected": "7"},
        {"prompt": "Q: 5 + 6?", "expected": "11"},
        {"prompt": "Q: 1 + 1?", "expected": "2"},
    ]
)


@pytest.fixture
async def router() -> AsyncIterator[RouterDouble]:
    async with RouterDouble.knowing(MODEL) as made:
        made.reply = lambda prompt: REPLIES.get(prompt, "")
        yield made


@pytest.fixture
async def dataset(tmp_path: Path, router: RouterDouble) -> AsyncIterator[DatasetHarness]:
    async with running_dataset(tmp_path, router) as harness:
        yield harness


def regex(name: str, pattern: str, **fields: Any) -> dataset_pb2.FilterPipeline:
    step = dataset_pb2.Filter(regex=dataset_pb2.RegexFilter(pattern=pattern, **fields))
    return dataset_pb2.FilterPipeline(name=name, steps=[step])


FILTERS = [
    regex("strict-match", r"#### (\-?[0-9\.\,]+)"),
    regex("flexible-extract", r"-?[0-9]+", group_select=-1, fallback="none"),
]


async def test_the_first_filter_decides_and_the_others_are_counted_beside_it(
    dataset: DatasetHarness, router: RouterDouble
) -> None:
    stub = await dataset.load(QUESTIONS, kind="generation", filters=FILTERS)

    score = await evaluated(stub)

    assert score.state == dataset_pb2.RUN_STATE_COMPLETE
    assert score.evaluator == dataset_pb2.EVALUATOR_EXACT_MATCH
    assert (score.correct, score.points, score.full_marks, score.done) == (1, 1, 1, 3)
    assert score.score == pytest.approx(1 / 3)
    assert dict(score.metrics) == {
        "exact_match,strict-match": pytest.approx(1 / 3),
        "exact_match,flexible-extract": pytest.approx(2 / 3),
    }
    first, second, _ = await results(stub, score.run)
    assert (first.points, first.correct, first.prediction, first.correct_answer) == (1, True, 0, 0)
    assert (second.points, second.correct) == (0, False)
    assert dict(first.extracted) == {"strict-match": "7", "flexible-extract": "7"}
    assert dict(second.extracted) == {"strict-match": "[invalid]", "flexible-extract": "11"}
    assert (second.reply, list(second.expected)) == ("It is 11.", ["11"])


async def test_a_prompt_is_continued_as_it_stands_by_the_rules_that_were_chosen(
    dataset: DatasetHarness, router: RouterDouble
) -> None:
    reply = dataset_pb2.Reply(max_tokens=64, stop=["Q:", "\n\n"], temperature="0.50", seed=7)
    stub = await dataset.load(QUESTIONS, kind="generation", reply=reply)

    await evaluated(stub)

    assert {request.prompt for request in router.inferred} == set(REPLIES)
    sampling = router.inferred[0].sampling
    assert (sampling.max_tokens, sampling.seed, list(sampling.stop)) == (64, 7, ["Q:", "\n\n"])
    assert sampling.temperature == 0.5
    assert sampling.grammar == ""


async def test_in_the_form_of_a_chat_the_prompt_is_a_turn_after_the_system_prompt(
    dataset: DatasetHarness, router: RouterDouble
) -> None:
    stub = await dataset.load(
        QUESTIONS,
        kind="generation",
        system_prompt="Be brief.",
        reply=dataset_pb2.Reply(form=dataset_pb2.PROMPT_FORM_CHAT),
    )

    await evaluated(stub)

    request = router.inferred[0]
    assert request.system_prompt == "Be brief."
    assert request.chat.messages[0].content in REPLIES


async def test_what_was_chosen_is_shown_and_is_part_of_the_version(dataset: DatasetHarness) -> None:
    fields: dict[str, Any] = {
        "filters": FILTERS,
        "exact_match": dataset_pb2.ExactMatch(ignore_case=True, regexes_to_ignore=[","]),
        "few_shot": dataset_pb2.FewShot(number=5, sampler="default", seed=1234, split="train"),
    }
    stub = await dataset.load(QUESTIONS, kind="generation", **fields)
    other = await dataset.load(QUESTIONS, "other", kind="generation")
    shots = await dataset.load(
        QUESTIONS, "shots", kind="generation", few_shot=dataset_pb2.FewShot(number=4)
    )

    async def shown(stub: Any, name: str) -> dataset_pb2.Dataset:
        return (await stub.GetDataset(dataset_pb2.GetDatasetRequest(id=name))).dataset  # type: ignore[no-any-return]

    found = await shown(stub, "d")
    assert [f.name for f in found.filters] == ["strict-match", "flexible-extract"]
    assert found.filters[0].steps[0].regex.fallback == "[invalid]"
    assert found.exact_match == fields["exact_match"]
    assert found.few_shot == fields["few_shot"]
    assert (found.reply.max_tokens, found.reply.temperature) == (256, "0")
    assert found.reply.form == dataset_pb2.PROMPT_FORM_PLAIN
    versions = {
        found.version,
        (await shown(other, "other")).version,
        (await shown(shots, "shots")).version,
    }
    assert len(versions) == 3


BAD: dict[str, dict[str, Any]] = {
    "filters[0].steps[0].regex.pattern": {"filters": [regex("a", "(?=x)")]},
    "filters[1].name": {"filters": [regex("a", "x"), regex("a", "y")]},
    "filters[0].name": {"filters": [regex("a b", "x")]},
    "filters[0].steps[0]": {
        "filters": [dataset_pb2.FilterPipeline(name="a", steps=[dataset_pb2.Filter()])]
    },
    "exact_match.regexes_to_ignore[0]": {
        "exact_match": dataset_pb2.ExactMatch(regexes_to_ignore=["["])
    },
    "reply.max_tokens": {"reply": dataset_pb2.Reply(max_tokens=5000)},
    "reply.temperature": {"reply": dataset_pb2.Reply(temperature="hot")},
    "reply.stop[0]": {"reply": dataset_pb2.Reply(stop=[""])},
    "few_shot.number": {"few_shot": dataset_pb2.FewShot(number=-1)},
    "judge": {"judge": dataset_pb2.Judge(seed=1)},
    "retrieval": {"retrieval": dataset_pb2.Retrieval(top_k=3)},
}


@pytest.mark.parametrize("field", BAD)
async def test_what_cannot_be_is_refused_by_its_field(dataset: DatasetHarness, field: str) -> None:
    stub = await dataset.stub()
    request = dataset_pb2.CreateDatasetRequest(id="bad", kind="generation", **BAD[field])
    error = await refusal(stub.CreateDataset(request))
    assert [violation.field for violation in error.violations] == [field]


@pytest.mark.parametrize("field", ["filters", "exact_match", "judge", "reply"])
async def test_what_a_kind_has_no_use_for_is_refused(dataset: DatasetHarness, field: str) -> None:
    given: dict[str, Any] = {
        "filters": FILTERS,
        "exact_match": dataset_pb2.ExactMatch(ignore_case=True),
        "judge": dataset_pb2.Judge(seed=1),
        "reply": dataset_pb2.Reply(max_tokens=3),
    }
    stub = await dataset.stub()
    request = dataset_pb2.CreateDatasetRequest(
        id="bad", kind="continuation", **{field: given[field]}
    )
    error = await refusal(stub.CreateDataset(request))
    assert [violation.field for violation in error.violations] == [field]
    assert "leave it out" in error.message


async def test_questions_come_back_with_what_is_expected(dataset: DatasetHarness) -> None:
    rows = [{"prompt": "Where?", "expected": ["(A)", "A"], "choices": ["Rome", "Oslo"]}]
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    stub = await dataset.load(content, kind="generation")
    response = await stub.ListQuestions(dataset_pb2.ListQuestionsRequest(dataset="d"))
    (question,) = response.questions
    assert (list(question.expected), list(question.answers)) == (["(A)", "A"], ["Rome", "Oslo"])
    assert question.result == 0
