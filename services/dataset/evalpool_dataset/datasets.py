"""Datasets: made, described and listed, and their questions. Within the caller's transaction."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Connection

from evalpool_dataset.parts import Kind, Parameters
from evalpool_dataset.question import Question
from evalpool_dataset.request_key import RequestKey
from evalpool_dataset.store import definitions, named_requests, runs
from evalpool_dataset.store.definitions import Definition, Version
from evalpool_runtime.errors import (
    AlreadyExists,
    FailedPrecondition,
    NotFound,
    reasons,
)


@dataclass(frozen=True, slots=True)
class NewDataset:
    """A dataset that somebody asks for.

    Attributes:
        id: Its id.
        kind: Its kind.
        title: For people.
        description: For people.
        license: Of the questions, for people.
        parameters: What its owner chose, and the kind's defaults for the rest.
        request: The call's name, where it has one.
    """

    id: str
    kind: Kind
    title: str
    description: str
    license: str
    parameters: Parameters
    request: RequestKey | None = None

    def made(self, owner: str, now: datetime) -> Definition:
        """The dataset, as it is made by somebody at some time."""
        return Definition(
            id=self.id,
            owner=owner,
            kind=self.kind.name,
            title=self.title,
            description=self.description,
            license=self.license,
            evaluator=self.parameters.evaluator.value,
            metric=self.parameters.metric.value,
            system_prompt=self.parameters.system_prompt,
            parameters=self.parameters.further(),
            create_time=now,
        )


@dataclass(frozen=True, slots=True)
class Described:
    """A dataset at one of its versions.

    Attributes:
        definition: The dataset.
        version: The version; None where it has no questions yet.
    """

    definition: Definition
    version: Version | None


def make(connection: Connection, new: NewDataset, owner: str, now: datetime) -> Described:
    """Make a dataset without questions; made again alike, it is the one that there is.

    Raises:
        AlreadyExists: The id is taken, by another owner or with other settings; or the call's name.
    """
    # A repeat needs no memory of what it made: the dataset itself tells.
    named_requests.claim(connection, owner, new.request, now)
    made = new.made(owner, now)
    runs.wait_for_turn(connection)
    known = definitions.find_definition(connection, made.id)
    if known is None:
        definitions.add_definition(connection, made)
        return Described(made, None)
    same = replace(
        made,
        create_time=known.create_time,
        update_time=known.update_time,
        newest_version=known.newest_version,
    )
    if known != same:
        raise AlreadyExists(
            reasons.ERROR_REASON_DATASET_EXISTS,
            f'id: there is a dataset "{made.id}" already, by another owner or with other '
            "settings; choose another id",
            dataset=made.id,
        )
    return Described(known, definitions.find_version(connection, known))


def describe(connection: Connection, dataset: str, digest: str) -> Described:
    """A dataset at a version; at its newest for the empty digest.

    Raises:
        NotFound: There is no such dataset or version.
    """
    definition = definitions.require_definition(connection, dataset, "id")
    version = definitions.find_version(connection, definition, digest)
    if version is None and digest:
        raise _no_version(dataset, digest)
    return Described(definition, version)


def page(connection: Connection, after: str, limit: int) -> list[Described]:
    """Datasets by id, after one, at their newest versions."""
    return [
        Described(definition, definitions.find_version(connection, definition))
        for definition in definitions.list_definitions(connection, after, limit)
    ]


def questions(
    connection: Connection, definition: Definition, digest: str, after: int, limit: int
) -> tuple[Version, list[Question]]:
    """A version and its questions in order, after one.

    Raises:
        NotFound: There is no such version.
        FailedPrecondition: The dataset has no questions.
    """
    version = require_version(connection, definition, digest)
    return version, definitions.list_questions(connection, version.id, after, limit)


def require_version(connection: Connection, definition: Definition, digest: str) -> Version:
    """A version that has questions; the newest one for the empty digest.

    Raises:
        NotFound: There is no such version.
        FailedPrecondition: The dataset has no questions.
    """
    found = definitions.find_version(connection, definition, digest)
    if found is None and digest:
        raise _no_version(definition.id, digest)
    if found is None:
        raise FailedPrecondition(
            reasons.ERROR_REASON_DATASET_EMPTY,
            f"dataset: {definition.id} has no questions yet; load a file with LoadData",
            dataset=definition.id,
        )
    return found


def _no_version(dataset: str, digest: str) -> NotFound:
    return NotFound(
        reasons.ERROR_REASON_DATASET_NOT_FOUND,
        f"version: {dataset} has no version {digest}; leave it empty for the newest",
        dataset=dataset,
    )
