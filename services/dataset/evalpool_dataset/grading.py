"""The herd's judge, asked for a grade: `judge`.

A judge sees the question, the context of the dataset's owner and the expected response beside the
reply. It never sees what a document set yielded: a participant's text could ask it for a grade.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import grpc

from evalpool.inference.v1 import inference_pb2
from evalpool.router.v1 import router_pb2, router_pb2_grpc
from evalpool_dataset.answers import another_model, problem_of, provenance_document
from evalpool_dataset.outcome import Waiting
from evalpool_dataset.parts import FULL_GRADE, JudgeRules
from evalpool_dataset.problem import ENGINE_FAILED, CallEnded, Problem
from evalpool_dataset.purse import Purse
from evalpool_dataset.question import Question
from evalpool_dataset.wait import Wait
from evalpool_runtime.clock import Clock

GRADE_SECONDS = 1800.0
"""How long a reply that is written waits for a judge, before it is written once more."""

FIRST_CALL_SECONDS = 60.0
"""The time limit of the first call. It doubles with each further one: a call says nothing while it
waits for a worker, and a judge may be slow, so that neither a short nor a long limit serves."""

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Grade:
    """A judge's grade.

    Attributes:
        points: From 0 to 10.
        judging: What gave it: model, engine, worker, seed, and the digest of what was asked.
    """

    points: int
    judging: dict[str, Any]


NO_REPLY = Grade(0, {})
"""What a reply without a word is given; no judge is asked."""


class Grading:
    """Has replies graded.

    Args:
        stub: The router.
        purse: Asks it, and pays where that costs something.
        clock: What time it is.
    """

    def __init__(
        self, stub: router_pb2_grpc.RouterServiceAsyncStub, purse: Purse, clock: Clock
    ) -> None:
        self._stub = stub
        self._purse = purse
        self._clock = clock

    async def grade(
        self, judge: JudgeRules, question: Question, reply: str, reference: str
    ) -> AsyncIterator[Waiting | Grade]:
        """Yield what the grade waits for, where it has to, and then the grade.

        Args:
            judge: What grades.
            question: As its owner wrote it.
            reply: The reply.
            reference: Names the request to the herd.

        Raises:
            CallEnded: There is none.
        """
        if not reply.strip():
            yield NO_REPLY
            return
        request = router_pb2.EvaluateRequest(
            question=question.question,
            expected_response=question.expected[0],
            context=question.context,
            response=reply,
            model=inference_pb2.ModelReference(digest=judge.model),
            reference=reference,
            seed=judge.seed,
        )
        wait, pause, seconds = Wait(), FIRST_PAUSE_SECONDS, FIRST_CALL_SECONDS
        end = self._clock.monotonic() + GRADE_SECONDS
        while True:
            try:
                response = await self._purse.ask_once(
                    request, partial(self._stub.Evaluate, timeout=seconds)
                )
            except grpc.aio.AioRpcError as error:
                problem = _of_the_judge(problem_of(error))
                now = self._clock.monotonic()
                if not problem.waits or now >= end:
                    raise CallEnded(problem) from error
                if (waiting := wait.heard(problem, now)) is not None:
                    yield waiting
                await asyncio.sleep(problem.retry_after or pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
                seconds = min(2 * seconds, GRADE_SECONDS)
                continue
            if (waiting := wait.heard(None, self._clock.monotonic())) is not None:
                yield waiting
            yield _grade(judge, response)
            return


def _grade(judge: JudgeRules, response: router_pb2.EvaluateResponse) -> Grade:
    origin = response.provenance
    if origin.model_digest != judge.model:
        raise CallEnded(another_model(origin))
    if not 0 <= response.score <= FULL_GRADE:
        raise CallEnded(Problem(f"the judge's grade was {response.score}", ENGINE_FAILED))
    judging = provenance_document(origin)
    judging |= {
        "worker": origin.worker,
        "seed": response.seed,
        "prompt_digest": response.prompt_digest,
    }
    return Grade(response.score, judging)


def _of_the_judge(problem: Problem) -> Problem:
    """A judge that cannot be run is never the fault of the model whose reply it was to grade."""
    reason = f"the judge gave no grade: {problem.reason}"
    return replace(
        problem, reason=reason, code=ENGINE_FAILED if problem.subjects_fault else problem.code
    )
