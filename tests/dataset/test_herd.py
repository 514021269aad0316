"""The herd's client against a double of the router."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest

from evalpool.channel import open_channel
from evalpool.errors import CallError
from evalpool.identity import Identity
from evalpool.router.v1 import router_pb2_grpc
from evalpool_dataset.herd import REQUEST_BYTES, Herd
from evalpool_dataset.inquiry import Asked, ask
from evalpool_dataset.outcome import Answered, Outcome, Started, Unanswered, UnforeseenAnswer
from evalpool_dataset.parts import SIQA, Evaluator
from evalpool_dataset.question import Question
from evalpool_runtime.clock import SystemClock
from evalpool_runtime.errors import NotFound
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
    yield Herd(stub, router.identity.address, SystemClock(), concurrent_replies=2)
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
    assert (found.digest, found.inference_process) == (MODEL, router.identity.address)
    with pytest.raises(NotFound, match="knows no model"):
        await herd.find_model("b" * 64)


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
    with pytest.raises(UnforeseenAnswer, match="not asked"):
        await outcomes(herd, SCORES, asked(1))


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
    assert {r.reference for r in router.inferred} == {"ref/101", "ref/102", "ref/103"}


async def test_a_full_queue_ends_the_call_after_what_a_worker_is_at(
    herd: Herd, router: RouterDouble
) -> None:
    found: list[Outcome] = []
    error: CallError | None = None
    stream = herd.evaluate(LETTERS, MODEL, asked(5), "ref")

    # Both places are taken; the second is refused while the first is still at a worker.
    router.open.clear()
    router.refuse_second = True
    try:
        async for outcome in stream:
            found.append(outcome)
    except grpc.aio.AioRpcError as raised:
        error = CallError.of(raised)

    assert error is not None
    assert error.reason == "QUEUE_FULL"
    assert [type(o) for o in found] == [Started, Answered]
    assert len(router.inferred) == 2


@pytest.mark.parametrize("evaluator", [SCORES, LETTERS])
async def test_a_refused_hold_ends_the_call(
    herd: Herd, router: RouterDouble, evaluator: Evaluator
) -> None:
    router.refusals = [(grpc.StatusCode.FAILED_PRECONDITION, "HOLD_REFUSED")]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await outcomes(herd, evaluator, asked(1))
    assert CallError.of(caught.value).reason == "HOLD_REFUSED"


async def test_a_letter_that_the_herd_cannot_give_fails_its_question_alone(
    herd: Herd, router: RouterDouble
) -> None:
    router.refusals = [(grpc.StatusCode.INVALID_ARGUMENT, "CONTEXT_TOO_LONG")]

    found = await outcomes(herd, LETTERS, asked(3))

    failed = [o for o in found if isinstance(o, Unanswered)]
    assert [(o.reason_code, o.retryable) for o in failed] == [("CONTEXT_TOO_LONG", False)]
    assert len([o for o in found if isinstance(o, Answered)]) == 2
