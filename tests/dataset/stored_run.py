"""A run with its dataset in a database, for tests of the store and the runner."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial

from sqlalchemy import Connection

from evalpool_dataset.evaluation import Evaluation, Policy, expire
from evalpool_dataset.installed import parameters_of
from evalpool_dataset.parts import installed_kinds
from evalpool_dataset.question import Question
from evalpool_dataset.run import Run
from evalpool_dataset.store import definitions, runs
from evalpool_dataset.store.definitions import Definition, Model, NewVersion, Version

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DIGEST = "a" * 64


def definition(dataset: str = "d", kind: str = "siqa") -> Definition:
    return Definition(
        id=dataset,
        owner="o" * 43,
        kind=kind,
        title="D",
        description="",
        license="",
        evaluator="loglikelihood",
        metric="acc",
        system_prompt="",
        parameters={},
        create_time=NOW,
    )


def model(digest: str = DIGEST, name: str = "M") -> Model:
    return Model(0, name, "r" * 43, digest, "pypi:m==1", "", 10)


def question(ordinal: int, choices: int = 3) -> Question:
    texts = tuple(f"choice {n} of {ordinal}" for n in range(1, choices + 1))
    return Question(ordinal, "", f"What is {ordinal}?", texts, 1 + ordinal % choices)


def add_run(
    connection: Connection,
    *,
    questions: int,
    run: str = "run",
    dataset: str = "d",
    kind: str = "siqa",
) -> Run:
    """Store a dataset of so many questions and a run on it."""
    if definitions.find_definition(connection, dataset) is None:
        definitions.add_definition(connection, definition(dataset, kind))
    version = add_version(connection, dataset, f"{questions:064}", questions)
    number = definitions.keep_model(connection, model())
    parameters = version.parts["evaluator"]
    return runs.add_run(connection, run, version, number, "loglikelihood", parameters, 1, NOW)


def lapse_at(now: datetime) -> Callable[[Evaluation], Evaluation]:
    """What takes back leases that have lapsed by then."""
    return partial(expire, now=now, policy=Policy())


def add_version(
    connection: Connection,
    dataset: str,
    digest: str,
    questions: int | Sequence[Question],
    now: datetime = NOW,
) -> Version:
    """Store questions, or so many of them, as the newest version of a dataset."""
    if isinstance(questions, int):
        questions = [question(n) for n in range(1, questions + 1)]
    present = definitions.require_definition(connection, dataset)
    kind = installed_kinds()[present.kind]
    parts = kind.parts(parameters_of(present)).specs()
    return definitions.add_version(
        connection, present, NewVersion(digest, parts, questions, "here", "0" * 64), now
    )
