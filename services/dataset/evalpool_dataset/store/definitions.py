"""Datasets, their versions and questions, and models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from evalpool_dataset import schema
from evalpool_dataset.digest import JsonValue
from evalpool_dataset.question import Question
from evalpool_runtime.errors import NotFound, reasons


@dataclass(frozen=True, slots=True)
class Definition:
    """A dataset as its owner made it."""

    id: str
    owner: str
    kind: str
    title: str
    description: str
    license: str
    evaluator: str
    metric: str
    system_prompt: str
    parameters: Mapping[str, JsonValue]
    create_time: datetime
    update_time: datetime | None = None
    newest_version: int | None = None


@dataclass(frozen=True, slots=True)
class Version:
    """Questions of a dataset that never change.

    Attributes:
        id: Its number.
        definition: The dataset's id.
        digest: Covers questions, parts and parameters.
        parts: What the parts say of themselves, by the part's name.
        question_count: How many questions.
    """

    id: int
    definition: str
    digest: str
    parts: Mapping[str, Mapping[str, JsonValue]]
    question_count: int


@dataclass(frozen=True, slots=True)
class NewVersion:
    """Questions that are to become a version.

    Attributes:
        digest: Covers questions, parts and parameters.
        parts: What the parts say of themselves, by the part's name.
        questions: In order.
        source: Where they came from, for people.
        source_sha256: The digest of the file that they came in.
    """

    digest: str
    parts: Mapping[str, Mapping[str, JsonValue]]
    questions: Sequence[Question]
    source: str
    source_sha256: str


@dataclass(frozen=True, slots=True)
class Model:
    """Something that has been evaluated."""

    id: int
    name: str
    inference_process: str
    digest: str
    source: str
    owner: str
    size_bytes: int


def find_definition(connection: Connection, dataset: str) -> Definition | None:
    """The dataset with an id."""
    row = connection.execute(
        select(schema.definitions).where(schema.definitions.c.id == dataset)
    ).first()
    return _definition(row) if row is not None else None


def require_definition(connection: Connection, dataset: str, field: str = "dataset") -> Definition:
    """The dataset with an id.

    Args:
        connection: The transaction.
        dataset: The id.
        field: The request's field that names it.

    Raises:
        NotFound: There is none.
    """
    found = find_definition(connection, dataset)
    if found is None:
        raise NotFound(
            reasons.ERROR_REASON_DATASET_NOT_FOUND,
            f'{field}: there is none with the id "{dataset}"; ListDatasets lists them',
            dataset=dataset,
        )
    return found


def list_definitions(connection: Connection, after: str, limit: int) -> list[Definition]:
    """Datasets by id, after one."""
    rows = connection.execute(
        select(schema.definitions)
        .where(schema.definitions.c.id > after)
        .order_by(schema.definitions.c.id)
        .limit(limit)
    )
    return [_definition(row) for row in rows]


def add_definition(connection: Connection, made: Definition) -> None:
    """Store a new dataset."""
    connection.execute(
        insert(schema.definitions).values(
            id=made.id,
            owner=made.owner,
            kind=made.kind,
            title=made.title,
            description=made.description,
            license=made.license,
            evaluator=made.evaluator,
            metric=made.metric,
            system_prompt=made.system_prompt,
            parameters=made.parameters,
            create_time=made.create_time,
        )
    )


def find_version(
    connection: Connection, definition: Definition, digest: str = ""
) -> Version | None:
    """A version by its digest; the newest one for the empty digest."""
    condition = (
        (schema.versions.c.definition == definition.id) & (schema.versions.c.digest == digest)
        if digest
        else schema.versions.c.id == definition.newest_version
    )
    row = connection.execute(select(schema.versions).where(condition)).first()
    return _version(row) if row is not None else None


def version_by_id(connection: Connection, version: int) -> Version:
    """A version by its number."""
    return _version(
        connection.execute(select(schema.versions).where(schema.versions.c.id == version)).one()
    )


def add_version(
    connection: Connection, definition: Definition, new: NewVersion, now: datetime
) -> Version:
    """Store questions as a version and make it the newest; the same content is no new version."""
    version = find_version(connection, definition, new.digest)
    if version is None:
        number = connection.execute(
            insert(schema.versions)
            .values(
                definition=definition.id,
                digest=new.digest,
                parts=new.parts,
                question_count=len(new.questions),
                source=new.source,
                source_sha256=new.source_sha256,
                create_time=now,
            )
            .returning(schema.versions.c.id)
        ).scalar_one()
        connection.execute(
            insert(schema.datasets),
            [_question_values(number, question) for question in new.questions],
        )
        version = version_by_id(connection, number)
    if version.id != definition.newest_version:
        connection.execute(
            update(schema.definitions)
            .where(schema.definitions.c.id == definition.id)
            .values(newest_version=version.id, update_time=now)
        )
    return version


def list_questions(connection: Connection, version: int, after: int, limit: int) -> list[Question]:
    """Questions of a version in their order, after one."""
    rows = connection.execute(
        select(schema.datasets)
        .where(schema.datasets.c.version == version, schema.datasets.c.ordinal > after)
        .order_by(schema.datasets.c.ordinal)
        .limit(limit)
    )
    return [_question(row) for row in rows]


def questions_by_rows(connection: Connection, rows: Sequence[int]) -> dict[int, Question]:
    """Questions by the numbers of their rows."""
    found = connection.execute(select(schema.datasets).where(schema.datasets.c.id.in_(rows)))
    return {row.id: _question(row) for row in found}


def keep_model(connection: Connection, model: Model) -> int:
    """Store a model, or find it; returns its number."""
    found = connection.scalar(
        select(schema.models.c.id).where(schema.models.c.data_tx == model.digest)
    )
    if found is not None:
        return int(found)
    return int(
        connection.execute(
            insert(schema.models)
            .values(
                name=model.name,
                inference_process=model.inference_process,
                data_tx=model.digest,
                source=model.source,
                owner=model.owner,
                size_bytes=model.size_bytes,
            )
            .returning(schema.models.c.id)
        ).scalar_one()
    )


def model_by_id(connection: Connection, number: int) -> Model:
    """A model by its number."""
    return _model(
        connection.execute(select(schema.models).where(schema.models.c.id == number)).one()
    )


def list_models(connection: Connection, after: tuple[str, int], limit: int) -> list[Model]:
    """Models by name, after one."""
    name, number = after
    rows = connection.execute(
        select(schema.models)
        .where(
            (schema.models.c.name > name)
            | ((schema.models.c.name == name) & (schema.models.c.id > number))
        )
        .order_by(schema.models.c.name, schema.models.c.id)
        .limit(limit)
    )
    return [_model(row) for row in rows]


def read_secret(connection: Connection, name: str) -> bytes:
    """A secret by its name."""
    return bytes(
        connection.execute(
            select(schema.secrets.c.value).where(schema.secrets.c.name == name)
        ).scalar_one()
    )


def _definition(row: Row[Any]) -> Definition:
    return Definition(
        id=row.id,
        owner=row.owner,
        kind=row.kind,
        title=row.title,
        description=row.description,
        license=row.license,
        evaluator=row.evaluator,
        metric=row.metric,
        system_prompt=row.system_prompt,
        parameters=row.parameters,
        create_time=row.create_time,
        update_time=row.update_time,
        newest_version=row.newest_version,
    )


def _version(row: Row[Any]) -> Version:
    return Version(row.id, row.definition, row.digest, row.parts, row.question_count)


def _question_values(version: int, question: Question) -> dict[str, Any]:
    answers = [*(question.choices or ("", "")), None][:3]
    return {
        "version": version,
        "ordinal": question.ordinal,
        "context": question.context,
        "question": question.question,
        "answerA": answers[0],
        "answerB": answers[1],
        "answerC": answers[2],
        "further_answers": list(question.choices[3:]),
        "result": str(question.answer),
        "expected": list(question.expected),
    }


def _question(row: Row[Any]) -> Question:
    first = filter(None, (row.answerA, row.answerB, row.answerC))
    return Question(
        ordinal=row.ordinal,
        context=row.context,
        question=row.question,
        choices=(*first, *row.further_answers),
        answer=int(row.result),
        expected=tuple(row.expected),
    )


def _model(row: Row[Any]) -> Model:
    return Model(
        id=row.id,
        name=row.name,
        inference_process=row.inference_process,
        digest=row.data_tx,
        source=row.source,
        owner=row.owner,
        size_bytes=row.size_bytes,
    )
