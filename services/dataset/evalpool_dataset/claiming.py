"""Claiming: which questions are taken up next, and what is asked for them. In one transaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import uuid4

from sqlalchemy import Connection

from evalpool_dataset.inquiry import ask
from evalpool_dataset.installed import NotUsable, usable_parts
from evalpool_dataset.outcome import Chunk, Claim
from evalpool_dataset.parts import Evaluator, Kind, Parts
from evalpool_dataset.run import Run
from evalpool_dataset.store import definitions, evaluations, runs
from evalpool_dataset.store.definitions import Version
from evalpool_dataset.store.recording import fail_run
from evalpool_dataset.store.turns import in_turn


@dataclass(frozen=True, slots=True)
class Claiming:
    """Leases questions, a chunk at a time.

    Attributes:
        kinds: The kinds of dataset, by name.
        holder: Who holds the leases.
        lease: How long they last.
        chunk_questions: Questions of a chunk at most.
    """

    kinds: Mapping[str, Kind]
    holder: str
    lease: timedelta
    chunk_questions: int

    def next_chunk(self, connection: Connection, now: datetime) -> Chunk | None:
        """Lease the next questions of one run; None where nothing can be taken up now."""
        for run in in_turn(connection):
            version = definitions.version_by_id(connection, run.version)
            definition = definitions.require_definition(connection, version.definition)
            try:
                parts = usable_parts(
                    self.kinds, definition, version, Evaluator(run.evaluator), run.parameters
                )
            except NotUsable as error:
                run = runs.require_run(connection, run.id, lock=True)
                runs.save_run(connection, fail_run(connection, run, error.problem, now))
                continue
            claims = evaluations.claim_some(
                connection,
                run.id,
                holder=self.holder,
                now=now,
                lease=self.lease,
                limit=self.chunk_questions,
            )
            if claims:
                return _chunk(connection, run, version, parts, claims)
        return None


def _chunk(
    connection: Connection, run: Run, version: Version, parts: Parts, claims: list[Claim]
) -> Chunk:
    seed = definitions.read_secret(connection, "choice-order")
    questions = definitions.questions_by_rows(connection, [c.question_row for c in claims])
    return Chunk(
        run=run,
        evaluator=parts.evaluator.evaluator,
        subject=definitions.model_by_id(connection, run.model).digest,
        claims={c.id: c for c in claims},
        asked={c.id: ask(parts, seed, version.digest, questions[c.question_row]) for c in claims},
        reference=f"{run.id}/{uuid4().hex[:16]}",
    )
