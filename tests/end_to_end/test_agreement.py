"""Scores beside lm-evaluation-harness's, from a question to its prediction by every metric.

The dataset service's parts ask, in an order of their own, and read the answers; the worker's engine
scores. What lies between them only carries. All 1,000 questions are compared under `make bench`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from evalpool_dataset.inquiry import Asked, Scored, ask, score
from evalpool_dataset.loaders import Format, LoadedQuestions, QuestionLoader
from evalpool_dataset.parts import SIQA
from evalpool_dataset.question import Question
from evalpool_dataset.scoring import Metric
from evalpool_worker.engine.base import ChoiceQuestion, QuestionResult
from evalpool_worker.engine.llama_cpp import LlamaCppEngine
from tests.published import EVERYDAY, SOCIAL_IQA, Published

pytestmark = pytest.mark.slow

# llama.cpp multiplies with 8-bit activations, the reference with 32-bit floats.
MEAN_DIFFERENCE = 0.25
LARGEST_DIFFERENCE = 1.5


@pytest.fixture
async def engine(smollm2_path: Path) -> AsyncIterator[LlamaCppEngine]:
    """The engine as a worker runs it."""
    made = LlamaCppEngine()
    await made.load(smollm2_path, "digest-of-smollm2")
    yield made
    await made.close()


def questions_of(published: Published) -> tuple[Question, ...]:
    loader = QuestionLoader(Format.JSON_LINES, SIQA.parts(SIQA.defaults).loader)
    loader.feed(published.questions.read_bytes())
    loaded = loader.finish()
    assert isinstance(loaded, LoadedQuestions)
    return loaded.questions


async def scored(engine: LlamaCppEngine, questions: tuple[Question, ...]) -> dict[int, Scored]:
    """What is predicted for each question, by its place in the file, from 0."""
    parts = SIQA.parts(SIQA.defaults)
    asked: dict[str, Asked] = {
        str(q.ordinal - 1): ask(parts, b"sixteen bytes of it", "any version", q) for q in questions
    }
    found: dict[int, Scored] = {}
    sent = [
        ChoiceQuestion(name, each.continuations.prompt, each.continuations.texts)
        for name, each in asked.items()
    ]
    async for result in engine.score(sent):
        assert isinstance(result, QuestionResult), result
        sums = [choice.sum_logprob for choice in result.scores]
        found[int(result.id)] = score(asked[result.id], sums)
    return found


@pytest.mark.parametrize(
    ("published", "part", "least"),
    [
        # Of the samples, which are shorter, more are near a tie.
        pytest.param(EVERYDAY, slice(0, 156), 0.94, id="everyday"),
        pytest.param(
            SOCIAL_IQA, slice(800, 1000), 0.97, id="social_iqa", marks=pytest.mark.social_iqa
        ),
    ],
)
async def test_the_same_choices_are_predicted_by_every_metric(
    engine: LlamaCppEngine, published: Published, part: slice, least: float
) -> None:
    found = await scored(engine, questions_of(published)[part])

    expected = {each["row"]: each for each in published.reference()[part]}
    assert found.keys() == expected.keys()
    differences = [
        abs(ours - theirs)
        for row, each in found.items()
        for ours, theirs in zip(each.sums, expected[row]["sum_logprob"], strict=True)
    ]
    same = {
        metric.value: sum(
            each.predictions[metric.value] == expected[row][f"{metric}_choice"]
            for row, each in found.items()
        )
        / len(found)
        for metric in Metric
    }
    assert sum(differences) / len(differences) < MEAN_DIFFERENCE, json.dumps(same)
    assert max(differences) < LARGEST_DIFFERENCE
    assert {metric: share for metric, share in same.items() if share < least} == {}
