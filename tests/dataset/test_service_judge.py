"""Replies that a judge grades: `judge`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.json_format import MessageToDict

from evalpool.dataset.v1 import dataset_pb2
from tests.dataset.dataset_harness import (
    OTHER_MODEL,
    DatasetHarness,
    evaluated,
    refusal,
    results,
    running_dataset,
    start,
    until,
)
from tests.dataset.judging_harness import ANSWERS, JUDGE, QUESTIONS, judging_herd
from tests.dataset.router_double import WORKER, RouterDouble

NO_WORKER = (grpc.StatusCode.UNAVAILABLE, "NO_WORKER")


@pytest.fixture
async def router() -> AsyncIterator[RouterDouble]:
    async with judging_herd() as made:
        yield made


@pytest.fixture
async def dataset(tmp_path: Path, router: RouterDouble) -> AsyncIterator[DatasetHarness]:
    async with running_dataset(tmp_path, router) as harness:
        yield harness


async def test_each_reply_is_graded_and_the_score_is_the_share_of_the_points(
    dataset: DatasetHarness, router: RouterDouble
) -> None:
    stub = await dataset.load(QUESTIONS, kind="open_ended")

    score = await evaluated(stub)

    assert score.state == dataset_pb2.RUN_STATE_COMPLETE
    assert score.evaluator == dataset_pb2.EVALUATOR_JUDGE
    assert (score.points, score.full_marks, score.correct, score.done) == (17, 10, 1, 2)
    assert score.score == pytest.approx(0.85)
    first, second = await results(stub, score.run)
    assert (first.points, first.correct) == (7, False)
    assert (second.points, second.correct) == (10, True)
    assert first.reply == "I say: Context: A tower.\n\nQuestion: Where is the tower?"
    assert list(first.expected) == ["In Paris."]


async def test_a_judge_gets_what_the_owner_wrote_and_the_reply(
    dataset: DatasetHarness, router: RouterDouble
) -> None:
    stub = await dataset.load(QUESTIONS, kind="open_ended", judge=dataset_pb2.Judge(seed=5))

    await evaluated(stub)

    (request,) = [r for r in router.graded if r.context]
    assert (request.question, request.context) == ("Where is the tower?", "A tower.")
    assert request.expected_response == "In Paris."
    assert request.response.startswith("I say: ")
    assert (request.model.digest, request.seed) == (JUDGE, 5)


async def test_what_graded_is_kept_with_the_run_and_with_each_reply(
    dataset: DatasetHarness,
) -> None:
    stub = await dataset.load(QUESTIONS, kind="open_ended", judge=dataset_pb2.Judge(seed=5))

    score = await evaluated(stub)

    first, _ = await results(stub, score.run)
    judging = dict(first.judging)
    assert judging["model_digest"] == JUDGE
    assert judging["prompt_digest"] == "p" * 64
    assert (judging["seed"], judging["worker"]) == (5, WORKER)
    judge = MessageToDict(score.provenance)["judge"]
    assert judge["model_digest"] == JUDGE
    assert judge["prompt_digest"] == "p" * 64


async def test_the_herds_own_judge_is_named_when_the_dataset_is_made(
    dataset: DatasetHarness, router: RouterDouble
) -> None:
    stub = await dataset.load(QUESTIONS, kind="open_ended")
    router.own_models = (ANSWERS, OTHER_MODEL)

    again = dataset_pb2.CreateDatasetRequest(id="d", kind="open_ended")
    found = (await stub.CreateDataset(again)).dataset

    assert found.judge.model == JUDGE
    other = dataset_pb2.CreateDatasetRequest(id="e", kind="open_ended")
    assert (await stub.CreateDataset(other)).dataset.judge.model == OTHER_MODEL


async def test_a_judge_that_the_herd_does_not_know_is_refused(dataset: DatasetHarness) -> None:
    stub = await dataset.stub()
    request = dataset_pb2.CreateDatasetRequest(
        id="d", kind="open_ended", judge=dataset_pb2.Judge(model="f" * 64)
    )
    error = await refusal(stub.CreateDataset(request))
    assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")
    assert error.message.startswith("judge.model:")


async def test_a_herd_without_a_judge_of_its_own_asks_for_one_to_be_named(
    dataset: DatasetHarness, router: RouterDouble
) -> None:
    router.own_models = ("", "")
    stub = await dataset.stub()
    request = dataset_pb2.CreateDatasetRequest(id="d", kind="open_ended")
    error = await refusal(stub.CreateDataset(request))
    assert error.code is grpc.StatusCode.UNAVAILABLE
    assert error.message.startswith("judge.model:")


async def test_a_reply_without_a_word_is_given_nothing_and_no_judge_is_asked(
    dataset: DatasetHarness, router: RouterDouble
) -> None:
    router.reply = lambda turn: "\n "
    stub = await dataset.load(QUESTIONS, kind="open_ended")

    score = await evaluated(stub)

    assert (score.state, score.points) == (dataset_pb2.RUN_STATE_COMPLETE, 0)
    assert router.graded == []


async def test_a_reply_waits_for_its_judge_and_is_not_written_again(
    dataset: DatasetHarness, router: RouterDouble
) -> None:
    router.judge_refusals = [NO_WORKER] * 4
    stub = await dataset.load(QUESTIONS, kind="open_ended")

    score = await evaluated(stub)

    assert (score.state, score.points) == (dataset_pb2.RUN_STATE_COMPLETE, 17)
    assert len(router.inferred) == 2
    assert {r.attempts for r in await results(stub, score.run)} == {1}


async def test_a_run_says_that_it_waits_for_a_judge(
    dataset: DatasetHarness, router: RouterDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evalpool_dataset.wait.TOLD_AFTER_SECONDS", 0.0)
    router.judge_refusals = [NO_WORKER] * 1000
    stub = await dataset.load(QUESTIONS, kind="open_ended")
    run = (await start(stub)).run

    waiting = await until(stub, run, reason_code="NO_WORKER")
    router.judge_refusals.clear()

    assert waiting.reason.startswith("the judge gave no grade:")
    assert (await until(stub, run, dataset_pb2.RUN_STATE_COMPLETE)).reason == ""


@pytest.mark.parametrize("refused", ["MODEL_NOT_FOUND", "MODEL_LOAD_FAILED", "ENGINE_FAILED"])
async def test_a_judge_that_cannot_be_run_is_never_the_subjects_fault(
    tmp_path: Path, router: RouterDouble, refused: str
) -> None:
    router.judge_refusals = [(grpc.StatusCode.FAILED_PRECONDITION, refused)] * 1000
    async with running_dataset(tmp_path, router, max_tries=1) as dataset:
        stub = await dataset.load(QUESTIONS, kind="open_ended")
        score = await evaluated(stub)

    assert score.state == dataset_pb2.RUN_STATE_FAILED
    assert score.reason_code == "EVALUATION_FAILED"
    assert "the judge gave no grade" in score.reason


async def test_a_grade_by_another_model_is_none(tmp_path: Path, router: RouterDouble) -> None:
    router.judge = OTHER_MODEL
    async with running_dataset(tmp_path, router, max_tries=1) as dataset:
        stub = await dataset.load(QUESTIONS, kind="open_ended")
        score = await evaluated(stub)

    assert (score.state, score.done) == (dataset_pb2.RUN_STATE_FAILED, 0)


@pytest.mark.parametrize("grade", [-1, 11])
async def test_a_grade_that_is_none_is_not_counted(
    tmp_path: Path, router: RouterDouble, grade: int
) -> None:
    router.grade = lambda request: grade
    async with running_dataset(tmp_path, router, max_tries=1) as dataset:
        stub = await dataset.load(QUESTIONS, kind="open_ended")
        score = await evaluated(stub)

    assert (score.state, score.done) == (dataset_pb2.RUN_STATE_FAILED, 0)
