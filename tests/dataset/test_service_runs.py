"""Runs over real gRPC, with a double of the router."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from evalpool.dataset.v1 import dataset_pb2
from evalpool.errors import CallError
from evalpool.identity import Identity
from evalpool.inference.v1 import inference_pb2
from tests.dataset.dataset_harness import (
    MODEL,
    OTHER_MODEL,
    DatasetHarness,
    evaluated,
    json_lines,
    lines,
    refusal,
    results,
    row,
    running_dataset,
    start,
    until,
)
from tests.dataset.router_double import RouterDouble, sum_of

if TYPE_CHECKING:
    pass

COMPLETE = dataset_pb2.RUN_STATE_COMPLETE
FAILED = dataset_pb2.RUN_STATE_FAILED
UNFUNDED = dataset_pb2.RUN_STATE_UNFUNDED
LETTER = dataset_pb2.EVALUATOR_LETTER


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[DatasetHarness]:
    async with (
        RouterDouble.knowing(MODEL, OTHER_MODEL) as router,
        running_dataset(tmp_path, router) as m,
    ):
        yield m


def benchmark(subject: str = MODEL, **fields: object) -> dataset_pb2.BenchmarkRequest:
    return dataset_pb2.BenchmarkRequest(dataset="d", subject=subject, **fields)  # type: ignore[arg-type]


async def test_known_sums_give_the_known_score_by_every_metric(harness: DatasetHarness) -> None:
    # Two characters, two bytes a character, and one that is longer than both.
    answers = {"answerA": "ab", "answerB": "éé", "answerC": "abcdefgh"}
    stub = await harness.load(json_lines(row(n, n % 3 + 1) | answers for n in range(1, 10)))
    sums = {" ab": -4.0, " éé": -4.5, " abcdefgh": -11.0}
    harness.router.sums = lambda prompt, choice: sums[choice]

    score = await evaluated(stub)

    # acc takes "ab" (-4); acc_norm "abcdefgh" (-1.375 a character), acc_bytes "éé" (-1.125 a byte).
    assert score.state == COMPLETE
    assert (score.correct, score.done, score.total, score.failed) == (3, 9, 9, 0)
    assert score.metrics == {"acc": 3 / 9, "acc_norm": 3 / 9, "acc_bytes": 3 / 9}
    found = await results(stub, score.run)
    assert all(r.predictions == {"acc": 1, "acc_norm": 3, "acc_bytes": 2} for r in found)
    assert [r.correct for r in found] == [n % 3 + 1 == 1 for n in range(1, 10)]
    assert score.provenance["engine_build"] == "double 1"
    assert "worker" not in score.provenance


@pytest.mark.parametrize(
    ("metric", "correct"),
    [
        (dataset_pb2.METRIC_ACC, 4),
        (dataset_pb2.METRIC_ACC_NORM, 1),
        (dataset_pb2.METRIC_ACC_BYTES, 2),
    ],
)
async def test_the_datasets_metric_decides(
    harness: DatasetHarness, metric: dataset_pb2.Metric.ValueType, correct: int
) -> None:
    answers = {"answerA": "ab", "answerB": "éé", "answerC": "abcdefgh"}
    labels = [1, 1, 1, 1, 2, 2, 3]
    stub = await harness.load(
        json_lines(row(n, label) | answers for n, label in enumerate(labels)), metric=metric
    )
    sums = {" ab": -4.0, " éé": -4.5, " abcdefgh": -11.0}
    harness.router.sums = lambda prompt, choice: sums[choice]

    score = await evaluated(stub)

    assert score.correct == correct
    assert score.score == correct / 7
    assert score.metrics == {"acc": 4 / 7, "acc_norm": 1 / 7, "acc_bytes": 2 / 7}


async def test_choices_are_sent_in_an_order_of_their_own_and_come_back_into_theirs(
    harness: DatasetHarness,
) -> None:
    stub = await harness.load(lines(60))

    score = await evaluated(stub)

    orders = set()
    for question in (q for request in harness.router.scored for q in request.questions):
        number = question.prompt.split("number ")[1].split(".")[0]
        own = [" " + row(int(number))[f"answer{letter}"] for letter in "ABC"]
        assert sorted(question.choices) == sorted(own)
        orders.add(tuple(own.index(choice) for choice in question.choices))
    assert len(orders) == 6
    found = await results(stub, score.run)
    assert [r.question for r in found] == list(range(1, 61))
    for result in found:
        texts = [" " + row(result.question)[f"answer{letter}"] for letter in "ABC"]
        assert list(result.sum_logprobs) == [sum_of("", text) for text in texts]
        assert (result.prediction, result.correct) == (1, True)
    assert score.correct == 60


async def test_the_router_never_gets_which_answer_is_right(harness: DatasetHarness) -> None:
    stub = await harness.load(lines(40, label=2))
    await harness.load(lines(40, label=3), "e")

    await evaluated(stub)
    first = {q.prompt: set(q.choices) for r in harness.router.scored for q in r.questions}
    harness.router.scored.clear()
    await evaluated(stub, dataset="e")
    second = {q.prompt: set(q.choices) for r in harness.router.scored for q in r.questions}

    # Whatever is right, the same questions go out; the order follows from a secret.
    assert first == second
    fields = {f.name for f in inference_pb2.ChoiceQuestion.DESCRIPTOR.fields}
    assert fields == {"id", "prompt", "choices", "prompts"}
    assert harness.router.callers == {harness.service.address}


async def test_somebody_elses_upload_is_refused_and_ones_own_is_run(
    harness: DatasetHarness,
) -> None:
    participant = Identity.generate()
    harness.router.models[MODEL].owner = participant.address
    stub = await harness.load(lines(2))
    service = await harness.stub(harness.benchmark)

    by_owner = await refusal(stub.Benchmark(benchmark(participant=participant.address)))
    for_another = await refusal(
        service.Benchmark(benchmark(participant=Identity.generate().address))
    )
    score = (await service.Benchmark(benchmark(participant=participant.address))).score

    assert {by_owner.reason, for_another.reason} == {"SUBJECT_NOT_OWNED"}
    assert by_owner.code is grpc.StatusCode.PERMISSION_DENIED
    assert (await until(service, score.run, COMPLETE)).correct == 2


async def test_only_the_owner_and_the_benchmark_service_run_and_see_scores(
    harness: DatasetHarness,
) -> None:
    score = await evaluated(await harness.load(lines(2)))
    stranger = await harness.stub(Identity.generate())
    service = await harness.stub(harness.benchmark)

    get = dataset_pb2.GetScoreRequest(run=score.run)
    for call in (
        stranger.Benchmark(benchmark()),
        stranger.GetScore(get),
        stranger.Evaluate(dataset_pb2.EvaluateRequest(run=score.run)),
        stranger.WatchScores(dataset_pb2.WatchScoresRequest(runs=[score.run])).read(),
        stranger.ListResults(dataset_pb2.ListResultsRequest(run=score.run)).read(),
        service.ListResults(dataset_pb2.ListResultsRequest(run=score.run)).read(),
    ):
        assert (await refusal(call)).code is grpc.StatusCode.PERMISSION_DENIED
    assert (await service.GetScore(get)).score.correct == 2


async def test_an_evaluator_that_the_kind_cannot_use_is_refused(harness: DatasetHarness) -> None:
    stub = await harness.load(lines(2))

    error = await refusal(stub.Benchmark(benchmark(evaluator=dataset_pb2.EVALUATOR_JUDGE)))

    assert error.reason == "EVALUATOR_MISMATCH"
    assert not harness.router.callers


async def test_the_same_run_again_is_the_run_that_there_is(harness: DatasetHarness) -> None:
    stub = await harness.load(lines(5))
    service = await harness.stub(harness.benchmark)
    first = await evaluated(stub)

    again = await start(stub)
    by_the_service = (await service.Benchmark(benchmark(participant=harness.owner.address))).score
    other = await evaluated(stub, OTHER_MODEL)

    assert again.run == by_the_service.run == first.run
    assert (again.state, again.done) == (COMPLETE, 5)
    assert other.run != first.run
    # Only the other model's run asked anything after the first.
    assert len(harness.router.prompts) == 10
    assert sum(request.model.digest == MODEL for request in harness.router.scored) == 1


async def test_two_starts_at_once_are_one_run(harness: DatasetHarness) -> None:
    stub = await harness.load(lines(5))

    both = await asyncio.gather(start(stub), start(stub), start(stub))

    assert len({score.run for score in both}) == 1
    await until(stub, both[0].run, COMPLETE)
    assert len(harness.router.prompts) == 5


async def test_letters_are_asked_for_under_a_grammar_and_na_is_wrong(
    harness: DatasetHarness,
) -> None:
    def reply(turn: str) -> str:
        if "number 3." in turn:
            return "N/A"
        answer = next(line for line in turn.splitlines() if line[3:].startswith("go "))
        return answer[0]

    harness.router.reply = reply
    stub = await harness.load(lines(30))

    score = await evaluated(stub, evaluator=LETTER)

    assert (score.state, score.correct, score.done) == (COMPLETE, 29, 30)
    assert not score.metrics
    request = harness.router.inferred[0]
    assert request.sampling.grammar == "root ::= [A-C]"
    assert request.sampling.temperature == 0
    assert "letter" in request.system_prompt
    found = await results(stub, score.run)
    assert {r.reply for r in found if r.question != 3} == {"A", "B", "C"}
    wrong = found[2]
    assert (wrong.reply, wrong.prediction, wrong.correct) == ("N/A", 0, False)
    assert wrong.state == dataset_pb2.EVALUATION_STATE_DONE
    assert not wrong.sum_logprobs


async def test_letter_and_loglikelihood_are_runs_of_their_own(harness: DatasetHarness) -> None:
    stub = await harness.load(lines(2))

    one = await evaluated(stub)
    other = await evaluated(stub, evaluator=LETTER)

    assert one.run != other.run
    assert (one.evaluator, other.evaluator) == (dataset_pb2.EVALUATOR_LOGLIKELIHOOD, LETTER)


async def test_evaluate_tells_how_many_questions_are_taken_up(harness: DatasetHarness) -> None:
    harness.router.open.clear()
    stub = await harness.load(lines(5))
    score = await start(stub)
    await harness.router.reached.wait()

    mine = await stub.Evaluate(dataset_pb2.EvaluateRequest(run=score.run))
    some = await stub.Evaluate(dataset_pb2.EvaluateRequest(limit=2))
    stranger = await (await harness.stub(Identity.generate())).Evaluate(
        dataset_pb2.EvaluateRequest()
    )
    wrong = await refusal(stub.Evaluate(dataset_pb2.EvaluateRequest(limit=1001)))
    harness.router.open.set()
    await until(stub, score.run, COMPLETE)

    assert (mine.scheduled, some.scheduled, stranger.scheduled) == (5, 2, 0)
    assert [v.field for v in wrong.violations] == ["limit"]
    assert (await stub.Evaluate(dataset_pb2.EvaluateRequest())).scheduled == 0
    assert len(harness.router.prompts) == 5


async def test_a_watch_goes_on_from_its_cursor(harness: DatasetHarness) -> None:
    stub = await harness.load(lines(3))
    first = await evaluated(stub)
    watch = stub.WatchScores(dataset_pb2.WatchScoresRequest())
    present = await watch.read()
    watch.cancel()
    assert isinstance(present, dataset_pb2.WatchScoresResponse)
    assert (present.score.run, present.score.state) == (first.run, COMPLETE)

    second = await evaluated(stub, OTHER_MODEL)
    resumed = stub.WatchScores(dataset_pb2.WatchScoresRequest(after_cursor=present.cursor))
    change = await resumed.read()
    resumed.cancel()

    assert isinstance(change, dataset_pb2.WatchScoresResponse)
    assert change.score.run == second.run
    assert change.cursor > present.cursor


@pytest.mark.parametrize("named", [True, False])
async def test_a_cursor_that_the_service_has_not_come_to_is_refused(
    harness: DatasetHarness, named: bool
) -> None:
    stub = await harness.load(lines(1))
    score = await evaluated(stub)
    runs = [score.run] if named else []

    ahead = dataset_pb2.WatchScoresRequest(runs=runs, after_cursor=score.cursor + 1)
    error = await refusal(stub.WatchScores(ahead).read())
    present = stub.WatchScores(dataset_pb2.WatchScoresRequest(after_cursor=score.cursor))
    again = await start(stub, OTHER_MODEL)
    change = await present.read()
    present.cancel()

    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert error.message == (
        f"after_cursor: it is {score.cursor + 1}, and this service has come to {score.cursor}; it "
        "is another service, or was set back: begin anew with 0"
    )
    assert [violation.field for violation in error.violations] == ["after_cursor"]
    assert isinstance(change, dataset_pb2.WatchScoresResponse)
    assert change.score.run == again.run


async def test_a_watch_ends_with_unavailable_when_the_service_stops(tmp_path: Path) -> None:
    async with RouterDouble.knowing(MODEL) as router, running_dataset(tmp_path, router) as harness:
        stub = await harness.load(lines(1))
        await evaluated(stub)
        watch = stub.WatchScores(dataset_pb2.WatchScoresRequest())
        await watch.read()
        harness.service.running.runtime.stopping.set()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await watch.read()
    assert CallError.of(caught.value).code is grpc.StatusCode.UNAVAILABLE


async def test_models_that_were_evaluated_are_listed(harness: DatasetHarness) -> None:
    stub = await harness.load(lines(1))
    known = await stub.GetModel(dataset_pb2.GetModelRequest(digest=MODEL))
    await evaluated(stub)
    await evaluated(stub, OTHER_MODEL)
    request = dataset_pb2.ListModelsRequest(page_size=1)

    first = await stub.ListModels(request)
    request.page_token = first.next_page_token
    second = await stub.ListModels(request)

    assert [m.digest for m in (*first.models, *second.models)] == [MODEL, OTHER_MODEL]
    assert first.models[0] == known.model
    assert known.model.inference_process == harness.router.identity.address
    assert not second.next_page_token


async def test_the_position_in_the_queue_moves_without_a_new_cursor(tmp_path: Path) -> None:
    third_model = "c" * 64
    async with (
        RouterDouble.knowing(MODEL, OTHER_MODEL, third_model) as router,
        running_dataset(tmp_path, router, concurrent_chunks=1) as harness,
    ):
        router.open.clear()
        stub = await harness.load(lines(1))
        first = await start(stub)
        await router.reached.wait()
        await start(stub, OTHER_MODEL)
        queued = await start(stub, third_model)
        # The first run's question is answered; the second run's then waits as the first one's did.
        router.open.set()
        router.open.clear()
        await until(stub, first.run, COMPLETE)
        moved = (await stub.GetScore(dataset_pb2.GetScoreRequest(run=queued.run))).score
        router.open.set()
        await until(stub, queued.run, COMPLETE)

    assert (queued.queue_position, moved.queue_position) == (2, 1)
    assert moved.cursor == queued.cursor
