"""The dataset service's values as the contract's messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta

from google.protobuf.struct_pb2 import Struct

from evalpool.common.v1.subject_kind_pb2 import (
    SUBJECT_KIND_DOCUMENT_SET,
    SUBJECT_KIND_MODEL,
)
from evalpool.dataset.v1 import dataset_pb2
from evalpool_dataset.datasets import Described
from evalpool_dataset.evaluation import State
from evalpool_dataset.installed import parameters_of, usable_evaluators
from evalpool_dataset.parameter_messages import tell_parameters
from evalpool_dataset.parts import Evaluator, Kind, Parameters
from evalpool_dataset.question import Question
from evalpool_dataset.run import COMPARISONS, RunState
from evalpool_dataset.scores import RunScore
from evalpool_dataset.scoring import Metric
from evalpool_dataset.store.definitions import Model
from evalpool_dataset.store.evaluations import Result
from evalpool_runtime.protobuf import duration, timestamp

PAGE_BYTES = 8 * 1024 * 1024
"""Bytes of the questions of one page, at most: half of what a message may have."""

EVALUATORS = {
    Evaluator.LOGLIKELIHOOD: dataset_pb2.EVALUATOR_LOGLIKELIHOOD,
    Evaluator.LETTER: dataset_pb2.EVALUATOR_LETTER,
    Evaluator.JUDGE: dataset_pb2.EVALUATOR_JUDGE,
    Evaluator.EXACT_MATCH: dataset_pb2.EVALUATOR_EXACT_MATCH,
}
METRICS = {
    Metric.ACC: dataset_pb2.METRIC_ACC,
    Metric.ACC_NORM: dataset_pb2.METRIC_ACC_NORM,
    Metric.ACC_BYTES: dataset_pb2.METRIC_ACC_BYTES,
}
_RUN_STATES = {
    RunState.QUEUED: dataset_pb2.RUN_STATE_QUEUED,
    RunState.RUNNING: dataset_pb2.RUN_STATE_RUNNING,
    RunState.COMPLETE: dataset_pb2.RUN_STATE_COMPLETE,
    RunState.FAILED: dataset_pb2.RUN_STATE_FAILED,
    RunState.UNFUNDED: dataset_pb2.RUN_STATE_UNFUNDED,
}
_STATES = {
    State.PENDING: dataset_pb2.EVALUATION_STATE_PENDING,
    State.LEASED: dataset_pb2.EVALUATION_STATE_LEASED,
    State.DONE: dataset_pb2.EVALUATION_STATE_DONE,
    State.FAILED: dataset_pb2.EVALUATION_STATE_FAILED,
}


def dataset_message(described: Described, kinds: Mapping[str, Kind]) -> dataset_pb2.Dataset:
    """A dataset at one version, without questions."""
    definition, version = described.definition, described.version
    message = dataset_pb2.Dataset(
        id=definition.id,
        title=definition.title,
        description=definition.description,
        owner=definition.owner,
        kind=definition.kind,
        evaluator=EVALUATORS[Evaluator(definition.evaluator)],
        metric=METRICS[Metric(definition.metric)],
        system_prompt=definition.system_prompt,
        version=version.digest if version else "",
        question_count=version.question_count if version else 0,
        create_time=timestamp(definition.create_time),
        license=definition.license,
        evaluators=usable_evaluators(kinds, definition, version),
    )
    tell_parameters(message, parameters_of(definition))
    if definition.update_time is not None:
        message.update_time.CopyFrom(timestamp(definition.update_time))
    return message


def question_messages(questions: Iterable[Question]) -> list[dataset_pb2.Question]:
    """Questions with their answers, for the owner: as many as a page has room for."""
    messages: list[dataset_pb2.Question] = []
    size = 0
    for message in map(_question_message, questions):
        size += message.ByteSize()
        if messages and size > PAGE_BYTES:
            break
        messages.append(message)
    return messages


def _question_message(question: Question) -> dataset_pb2.Question:
    return dataset_pb2.Question(
        id=question.ordinal,
        context=question.context,
        question=question.question,
        answers=question.choices,
        result=question.answer,
        expected=question.expected,
    )


def model_message(model: Model) -> dataset_pb2.Model:
    """A model."""
    return dataset_pb2.Model(
        digest=model.digest,
        name=model.name,
        source=model.source,
        owner=model.owner,
        size_bytes=model.size_bytes,
        inference_process=model.inference_process,
    )


def subject_message(subject: Model, chosen: Parameters) -> dataset_pb2.Subject:
    """What would be evaluated on a dataset whose owner has chosen so."""
    is_set = chosen.retrieval is not None
    return dataset_pb2.Subject(
        digest=subject.digest,
        name=subject.name,
        owner=subject.owner,
        kind=SUBJECT_KIND_DOCUMENT_SET if is_set else SUBJECT_KIND_MODEL,
    )


def score_message(score: RunScore) -> dataset_pb2.Score:
    """A run's standing."""
    run = score.run
    standing = run.standing
    message = dataset_pb2.Score(
        run=run.id,
        dataset=score.definition.id,
        version=score.version.digest,
        subject=score.model.digest,
        evaluator=EVALUATORS[Evaluator(run.evaluator)],
        state=_RUN_STATES[run.state],
        reason=run.reason,
        reason_code=run.reason_code,
        correct=run.correct,
        done=run.done,
        points=run.points,
        full_marks=run.full_marks,
        total=run.total,
        failed=run.failed,
        score=float(standing.score),
        progress=float(standing.progress),
        queue_position=score.queue_position,
        cursor=run.cursor,
    )
    for metric, count in run.metric_counts.items():
        if run.done and metric not in COMPARISONS:
            message.metrics[metric] = count / run.done
    if run.start_time is not None:
        message.start_time.CopyFrom(timestamp(run.start_time))
    if run.end_time is not None:
        message.end_time.CopyFrom(timestamp(run.end_time))
    if run.provenance:
        document = Struct()
        document.update(run.provenance)
        message.provenance.CopyFrom(document)
    return message


def result_message(result: Result) -> dataset_pb2.ListResultsResponse:
    """One question of a run, for the dataset's owner."""
    evaluation = result.evaluation
    question = result.question
    message = dataset_pb2.ListResultsResponse(
        question=question.ordinal,
        state=_STATES[evaluation.state],
        correct_answer=question.answer,
        prediction=evaluation.prediction or 0,
        correct=evaluation.points == result.full_marks,
        attempts=evaluation.attempts,
        reason=evaluation.reason or "",
        points=evaluation.points or 0,
        choices=question.choices,
        expected=question.expected,
    )
    answer = result.answer
    if answer is not None:
        message.prompt = answer.prompt
        message.sum_logprobs.extend(answer.sum_logprobs or ())
        message.reply = answer.reply or ""
        message.inference_start_time.CopyFrom(timestamp(answer.start_time))
        message.inference_end_time.CopyFrom(timestamp(answer.end_time))
        message.inference_reference = answer.reference
        message.latency.CopyFrom(duration(max(timedelta(), answer.end_time - answer.start_time)))
        message.worker = answer.worker
        message.engine_build = answer.engine_build
        message.predictions.update(answer.predictions or {})
        message.extracted.update(answer.extracted or {})
        if answer.judging:
            message.judging.update(answer.judging)
    return message
