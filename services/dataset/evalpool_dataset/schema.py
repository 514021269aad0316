"""The dataset service's tables. `datasets`, `models` and `evaluations` keep the seed's columns."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

from evalpool_runtime.columns import Json, UtcDateTime
from evalpool_runtime.replay import seen_tokens_table

metadata = MetaData()

# A dataset as its owner made it; its questions are in versions.
definitions = Table(
    "definitions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("license", Text, nullable=False),
    Column("evaluator", Text, nullable=False),
    Column("metric", Text, nullable=False),
    Column("system_prompt", Text, nullable=False),
    # What else the owner chose; what was left at its default is left out.
    Column("parameters", Json, nullable=False, server_default="{}"),
    Column("newest_version", Integer),
    Column("create_time", UtcDateTime, nullable=False),
    Column("update_time", UtcDateTime),
)

# A scored version never changes.
versions = Table(
    "versions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("definition", Text, ForeignKey("definitions.id"), nullable=False),
    Column("digest", Text, nullable=False),
    # What its parts say of themselves, by the part's name, as it is in the digest.
    Column("parts", Json, nullable=False),
    Column("question_count", Integer, nullable=False),
    Column("source", Text, nullable=False),
    Column("source_sha256", Text, nullable=False),
    Column("create_time", UtcDateTime, nullable=False),
    UniqueConstraint("definition", "digest"),
)

# One row a question of one version.
datasets = Table(
    "datasets",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("version", Integer, ForeignKey("versions.id"), nullable=False),
    Column("ordinal", Integer, nullable=False),
    Column("context", Text, nullable=False),
    Column("question", Text, nullable=False),
    # Empty where the question is answered freely.
    Column("answerA", Text, nullable=False),
    Column("answerB", Text, nullable=False),
    Column("answerC", Text),
    # The answers after the third, where there are any.
    Column("further_answers", Json, nullable=False),
    # The right answer's place; "0" where the question is answered freely.
    Column("result", Text, nullable=False),
    # The replies that are right, where it is.
    Column("expected", Json, nullable=False, server_default="[]"),
    UniqueConstraint("version", "ordinal"),
)

models = Table(
    "models",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("inference_process", Text, nullable=False),
    # The content's digest.
    Column("data_tx", Text, nullable=False, unique=True),
    Column("source", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
)

# One subject on one version's content with one evaluator and its parameters. `version` is the one
# whose questions are asked: of several with the same content the first.
runs = Table(
    "runs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("number", Integer, nullable=False, unique=True),
    Column("version", Integer, ForeignKey("versions.id"), nullable=False),
    Column("model_id", Integer, ForeignKey("models.id"), nullable=False),
    Column("evaluator", Text, nullable=False),
    # What the evaluator says of itself, as it is in the run's id.
    Column("parameters", Json, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("reason_code", Text, nullable=False),
    Column("correct", Integer, nullable=False),
    Column("points", BigInteger, nullable=False, server_default="0"),
    # The points that one question can give.
    Column("full_marks", Integer, nullable=False, server_default="1"),
    Column("done", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("total", Integer, nullable=False),
    # Right answers by each metric, and questions whose choices all scored alike.
    Column("metric_counts", Json, nullable=False),
    Column("provenance", Json),
    Column("cursor", BigInteger, nullable=False),
    Column("create_time", UtcDateTime, nullable=False),
    Column("start_time", UtcDateTime),
    Column("end_time", UtcDateTime),
    Index("ix_runs_cursor", "cursor", unique=True),
    Index("ix_runs_state", "state", "number"),
)

# On which datasets a run was asked for: their owners see it, whosever questions were the first.
askings = Table(
    "askings",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("run", Text, ForeignKey("runs.id"), nullable=False),
    Column("version", Integer, ForeignKey("versions.id"), nullable=False),
    UniqueConstraint("run", "version"),
    Index("ix_askings_version", "version"),
)

# Calls that their callers have named, and the run that they began, where it was one.
requests = Table(
    "requests",
    metadata,
    Column("caller", Text, primary_key=True),
    Column("request_id", Text, primary_key=True),
    Column("fingerprint", Text, nullable=False),
    Column("run", Text, ForeignKey("runs.id")),
    Column("version", Integer, ForeignKey("versions.id")),
    Column("create_time", UtcDateTime, nullable=False),
)

# One row: the newest cursor. Locked by each commit that changes a run, so that no watch skips one.
score_cursor = Table(
    "score_cursor",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("cursor", BigInteger, nullable=False),
)

evaluations = Table(
    "evaluations",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("run", Text, ForeignKey("runs.id"), nullable=False),
    Column("dataset_id", Integer, ForeignKey("datasets.id"), nullable=False),
    Column("model_id", Integer, ForeignKey("models.id"), nullable=False),
    Column("ordinal", Integer, nullable=False),
    Column("prompt", Text, nullable=False),
    Column("correct_answer", Text, nullable=False),
    Column("prediction", Text),
    # The points that it was given.
    Column("points", Integer),
    Column("inference_start_time", UtcDateTime),
    Column("inference_end_time", UtcDateTime),
    Column("inference_reference", Text),
    Column("state", Text, nullable=False),
    # The number of the newest claim: a result counts only with it.
    Column("fence", Integer, nullable=False),
    # Claims that a worker started on, and failures in a row, since the last retry.
    Column("attempts", Integer, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("started", Boolean, nullable=False),
    Column("leased_by", Text),
    Column("leased_until", UtcDateTime),
    Column("not_before", UtcDateTime),
    Column("sum_logprobs", Json),
    Column("predictions", Json),
    Column("reply", Text),
    # What filters took from the reply, by their names.
    Column("extracted", Json),
    # What graded the reply.
    Column("judging", Json),
    Column("latency_microseconds", BigInteger),
    Column("worker", Text),
    Column("engine_build", Text),
    Column("reason", Text, nullable=False),
    Column("reason_code", Text, nullable=False),
    UniqueConstraint("run", "dataset_id"),
    Index("ix_evaluations_open", "run", "state", "ordinal"),
    Index("ix_evaluations_leased", "state", "leased_until"),
)

# What must stay the same for as long as the data does, such as the seed of the choices' order.
secrets = Table(
    "secrets",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", LargeBinary, nullable=False),
)

seen_tokens = seen_tokens_table(metadata)
