"""The herd's client against a double of the router."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest

from evalpool.channel import open_channel
from evalpool.identity import Identity
from evalpool.inference.v1 import inference_pb2
from evalpool.router.v1 import router_pb2_grpc
from evalpool_dataset.choice_scores import REQUEST_BYTES
from evalpool_dataset.herd import Herd
from evalpool_dataset.inquiry import Asked, ask
from evalpool_dataset.outcome import Answered, Outcome, Started, Unanswered, Waiting
from evalpool_dataset.parts import SIQA, Evaluator
from evalpool_dataset.problem import CallEnded, Problem
from evalpool_dataset.question import Question
from tests.dataset.herd_harness import herd_of
from tests.dataset.router_double import WORKER, RouterDouble

MODEL = "a" * 64
SCORES = Evaluator.LOGLIKELIHOOD
LETTERS = Evaluator.LETTER


@pytest.fixture
async def router() -> AsyncIterator[RouterDouble]:
    async with RouterDouble.knowing(MODEL) as made:
        yield made


@pytest.fixture
async def herd(router: RouterDouble) -> AsyncIterator[Herd]:
    channel = open_channel(
        router.endpoint, Identity.generate(), router.identity.address, retries=False
    )
    stub = router_pb2_grpc.RouterServiceStub(channel)
    yield herd_of(stub, router.identity.address)
    await channel.close()


def asked(count: int, context: str = "") -> dict[int, Asked]:
    parts = SIQA.parts(SIQA.defaults)
    return {
        100 + n: ask(
            parts, b"s" * 16, "v", Question(n, context, f"What is {n}?", ("a", "bb", "ccc"), 1)
        )
        for n in range(1, count + 1)
    }


async def outcomes(herd: Herd, evaluator: Evaluator, questions: dict[int, Asked]) -> list[Outcome]:
    return [o async for o in herd.evaluate(evaluator, MODEL, questions, "ref")]


async def test_a_model_is_found_or_is_not(herd: Herd, router: RouterDouble) -> None:
    found = await herd.find_model(MODEL)
    assert found is not None
    assert (found.digest, found.inference_process) == (MODEL, router.identity.address)
    assert await herd.find_model("b" * 64) is None


async def test_every_question_has_its_answer(herd: Herd) -> None:
    found = await outcomes(herd, SCORES, asked(5))

    assert found[0] == Started(tuple(range(101, 106)))
    answers = [o for o in found if isinstance(o, Answered)]
    assert [a.id for a in answers] == list(range(101, 106))
    assert {a.answer.sum_logprobs for a in answers} == {(-2.0, -3.0, -4.0)}
    assert {(a.answer.worker, a.answer.reference) for a in answers} == {(WORKER, "ref")}
    assert (answers[0].answer.end_time - answers[0].answer.start_time).seconds == 2
    assert answers[0].provenance["threads"] == 2
    assert not {"worker", "dispatch", "generation"} & answers[0].provenance.keys()


async def test_large_questions_go_in_requests_that_a_message_has_room_for(
    herd: Herd, router: RouterDouble
) -> None:
    found = await outcomes(herd, SCORES, asked(24, context="x" * 1_000_000))

    assert len([o for o in found if isinstance(o, Answered)]) == 24
    assert len(router.scored) == 6
    assert all(request.ByteSize() <= REQUEST_BYTES + 1000 for request in router.scored)


@pytest.mark.parametrize("name", ["7", "x", "", "0101", " 101"])
async def test_a_result_that_was_not_asked_for_is_not_taken(
    herd: Herd, router: RouterDouble, name: str
) -> None:
    def change(result: object) -> None:
        result.id = name  # type: ignore[attr-defined]

    router.change = change
    with pytest.raises(CallEnded, match="not asked"):
        await outcomes(herd, SCORES, asked(1))


async def test_what_an_open_call_waits_for_is_told_until_a_worker_is_there(
    herd: Herd, router: RouterDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evalpool_dataset.wait.TOLD_AFTER_SECONDS", 0.0)
    nobody = inference_pb2.ScoreProgress(stage="no worker is there", reason_code="NO_WORKER")
    router.progress = [
        inference_pb2.ScoreProgress(stage="waiting in the queue", queue_position=3),
        nobody,
        nobody,
        inference_pb2.ScoreProgress(stage="loading", stage_progress=0.5),
    ]

    found = await outcomes(herd, SCORES, asked(2))

    waiting = Waiting(Problem("no worker is there", "NO_WORKER"))
    assert found[:3] == [waiting, Waiting(None), Started((101, 102))]
    assert [type(outcome) for outcome in found[3:]] == [Answered, Answered]


async def test_what_a_reply_waits_for_is_told_and_is_no_beginning(
    herd: Herd, router: RouterDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evalpool_dataset.wait.TOLD_AFTER_SECONDS", 0.0)
    nobody = inference_pb2.ScoreProgress(stage="no worker is there", reason_code="NO_WORKER")
    router.progress = [nobody, nobody]

    found = await outcomes(herd, LETTERS, asked(1))

    waiting = Waiting(Problem("no worker is there", "NO_WORKER"))
    assert found[:3] == [waiting, Waiting(None), Started((101,))]
    assert isinstance(found[3], Answered)
    assert found[3].answer.reply == "A"


async def test_a_reply_is_read_and_kept(herd: Herd, router: RouterDouble) -> None:
    router.reply = lambda turn: "N/A" if "What is 2?" in turn else "B"

    found = await outcomes(herd, LETTERS, asked(3))

    answers = {o.id: o for o in found if isinstance(o, Answered)}
    assert {number: a.answer.reply for number, a in answers.items()} == {
        101: "B",
        102: "N/A",
        103: "B",
    }
    assert answers[102].prediction == 0
    # They are asked for together, so that any of them may arrive first.
    asked_for = next(r for r in router.inferred if "What is 1?" in r.chat.messages[0].content)
    assert answers[101].answer.prompt == (
        f"{asked_for.system_prompt}\n\n{asked_for.chat.messages[0].content}"
    )
    assert {r.reference for r in router.inferred} == {"ref/101", "ref/102", "ref/103"}


async def test_a_full_queue_ends_the_call_after_what_a_worker_is_at(
    herd: Herd, router: RouterDouble
) -> None:
    found: list[Outcome] = []

    async def take() -> None:
        async for outcome in herd.evaluate(LETTERS, MODEL, asked(5), "ref"):
            found.append(outcome)

    # Both places are taken; the second is refused while the first is still at a worker.
    router.open.clear()
    router.refuse_second = True
    with pytest.raises(CallEnded) as caught:
        await take()

    assert caught.value.problem.code == "QUEUE_FULL"
    assert caught.value.problem.waits
    assert caught.value.problem.retry_after == 0.01
    assert [type(o) for o in found] == [Started, Answered]
    assert len(router.inferred) == 2


@pytest.mark.parametrize("evaluator", [SCORES, LETTERS])
@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (grpc.StatusCode.FAILED_PRECONDITION, "HOLD_REFUSED"),
        (grpc.StatusCode.FAILED_PRECONDITION, "NO_WORKER"),
        (grpc.StatusCode.FAILED_PRECONDITION, "MODEL_FETCH_FAILED"),
        (grpc.StatusCode.FAILED_PRECONDITION, "MODEL_LOAD_FAILED"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "WORKER_BUSY"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"),
        (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE"),
    ],
)
async def test_what_keeps_every_question_from_being_asked_ends_the_call(
    herd: Herd,
    router: RouterDouble,
    evaluator: Evaluator,
    code: grpc.StatusCode,
    reason: str,
) -> None:
    router.always = (code, reason)
    with pytest.raises(CallEnded) as caught:
        await outcomes(herd, evaluator, asked(5))
    assert caught.value.problem.code == reason
    # No more than were asked at once.
    assert len(router.inferred) <= 2


@pytest.mark.parametrize("evaluator", [SCORES, LETTERS])
async def test_a_router_out_of_reach_is_waited_for(
    herd: Herd, router: RouterDouble, evaluator: Evaluator
) -> None:
    await router.stop()
    with pytest.raises(CallEnded) as caught:
        await outcomes(herd, evaluator, asked(1))
    assert caught.value.problem.waits
    assert caught.value.problem.reason.startswith("the router gave no answer: ")


@pytest.mark.parametrize("evaluator", [SCORES, LETTERS])
async def test_a_router_that_does_not_answer_in_time_is_waited_for(
    herd: Herd, router: RouterDouble, evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evalpool_dataset.choice_scores.CALL_SECONDS", 0.1)
    monkeypatch.setattr("evalpool_dataset.replies.REPLY_SECONDS", 0.1)
    router.open.clear()

    with pytest.raises(CallEnded) as caught:
        await outcomes(herd, evaluator, asked(1))

    assert caught.value.problem.code == "DEADLINE_EXCEEDED"
    assert caught.value.problem.waits


@pytest.mark.parametrize(
    ("code", "reason", "retryable", "attempt"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, "CONTEXT_TOO_LONG", False, False),
        (grpc.StatusCode.INTERNAL, "ENGINE_FAILED", True, True),
        (grpc.StatusCode.UNAVAILABLE, "WORKER_LOST", True, True),
        (grpc.StatusCode.INTERNAL, "INTERNAL", True, False),
        (grpc.StatusCode.PERMISSION_DENIED, "NOT_ALLOWED", True, False),
    ],
)
async def test_a_letter_that_fails_before_its_first_token_fails_alone(
    herd: Herd,
    router: RouterDouble,
    code: grpc.StatusCode,
    reason: str,
    retryable: bool,
    attempt: bool,
) -> None:
    router.refusals = [(code, reason)]

    found = await outcomes(herd, LETTERS, asked(3))

    (failed,) = [o.problem for o in found if isinstance(o, Unanswered)]
    assert (failed.code, failed.retryable) == (reason, retryable)
    assert failed.worker_was_at_it is attempt
    assert not failed.waits
    assert len([o for o in found if isinstance(o, Answered)]) == 2


@pytest.mark.parametrize("finish", [inference_pb2.FINISH_REASON_CANCELLED, None])
async def test_a_reply_that_was_given_up_is_no_wrong_answer(
    herd: Herd, router: RouterDouble, finish: inference_pb2.FinishReason.ValueType | None
) -> None:
    router.finish = finish

    found = await outcomes(herd, LETTERS, asked(1))

    assert found[0] == Started((101,))
    (failed,) = found[1:]
    assert isinstance(failed, Unanswered)
    assert (failed.problem.code, failed.problem.retryable) == ("ENGINE_FAILED", True)


@pytest.mark.parametrize("evaluator", [SCORES, LETTERS])
async def test_a_caller_that_goes_away_ends_its_calls(
    herd: Herd, router: RouterDouble, evaluator: Evaluator
) -> None:
    router.open.clear()
    asking = asyncio.create_task(outcomes(herd, evaluator, asked(2)))
    await router.reached.wait()

    asking.cancel()

    await router.cancelled.wait()
    with pytest.raises(asyncio.CancelledError):
        await asking


@pytest.mark.parametrize("evaluator", [SCORES, LETTERS])
async def test_an_answer_by_another_model_is_none(
    herd: Herd, router: RouterDouble, evaluator: Evaluator
) -> None:
    router.answers_as = "b" * 64

    found = await outcomes(herd, evaluator, asked(1))

    assert found[-1] == Unanswered(
        101, Problem(f"the answer came from the model {'b' * 64}", "ENGINE_FAILED")
    )
