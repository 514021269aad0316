"""The first tables."""

import secrets

import sqlalchemy as sa
from alembic import op

from evalpool_runtime.columns import Json, UtcDateTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "definitions",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("license", sa.Text, nullable=False),
        sa.Column("evaluator", sa.Text, nullable=False),
        sa.Column("metric", sa.Text, nullable=False),
        sa.Column("system_prompt", sa.Text, nullable=False),
        sa.Column("newest_version", sa.Integer),
        sa.Column("create_time", UtcDateTime, nullable=False),
        sa.Column("update_time", UtcDateTime),
    )
    op.create_table(
        "versions",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("definition", sa.Text, sa.ForeignKey("definitions.id"), nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("parts", Json, nullable=False),
        sa.Column("question_count", sa.Integer, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("source_sha256", sa.Text, nullable=False),
        sa.Column("create_time", UtcDateTime, nullable=False),
        sa.UniqueConstraint("definition", "digest"),
    )
    op.create_table(
        "datasets",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("version", sa.Integer, sa.ForeignKey("versions.id"), nullable=False),
        sa.Column("ordinal", sa.Integer, nullable=False),
        sa.Column("context", sa.Text, nullable=False),
        sa.Column("question", sa.Text, nullable=False),
        sa.Column("answerA", sa.Text, nullable=False),
        sa.Column("answerB", sa.Text, nullable=False),
        sa.Column("answerC", sa.Text),
        sa.Column("further_answers", Json, nullable=False),
        sa.Column("result", sa.Text, nullable=False),
        sa.UniqueConstraint("version", "ordinal"),
    )
    op.create_table(
        "models",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("inference_process", sa.Text, nullable=False),
        sa.Column("data_tx", sa.Text, nullable=False, unique=True),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "runs",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("number", sa.Integer, nullable=False, unique=True),
        sa.Column("version", sa.Integer, sa.ForeignKey("versions.id"), nullable=False),
        sa.Column("model_id", sa.Integer, sa.ForeignKey("models.id"), nullable=False),
        sa.Column("evaluator", sa.Text, nullable=False),
        sa.Column("parameters", Json, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("reason_code", sa.Text, nullable=False),
        sa.Column("correct", sa.Integer, nullable=False),
        sa.Column("done", sa.Integer, nullable=False),
        sa.Column("failed", sa.Integer, nullable=False),
        sa.Column("total", sa.Integer, nullable=False),
        sa.Column("metric_counts", Json, nullable=False),
        sa.Column("provenance", Json),
        sa.Column("cursor", sa.BigInteger, nullable=False),
        sa.Column("create_time", UtcDateTime, nullable=False),
        sa.Column("start_time", UtcDateTime),
        sa.Column("end_time", UtcDateTime),
    )
    op.create_index("ix_runs_cursor", "runs", ["cursor"], unique=True)
    op.create_index("ix_runs_state", "runs", ["state", "number"])
    op.create_table(
        "askings",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("run", sa.Text, sa.ForeignKey("runs.id"), nullable=False),
        sa.Column("version", sa.Integer, sa.ForeignKey("versions.id"), nullable=False),
        sa.UniqueConstraint("run", "version"),
    )
    op.create_index("ix_askings_version", "askings", ["version"])
    op.create_table(
        "requests",
        sa.Column("caller", sa.Text, primary_key=True),
        sa.Column("request_id", sa.Text, primary_key=True),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("run", sa.Text, sa.ForeignKey("runs.id")),
        sa.Column("version", sa.Integer, sa.ForeignKey("versions.id")),
        sa.Column("create_time", UtcDateTime, nullable=False),
    )
    score_cursor = op.create_table(
        "score_cursor",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("cursor", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "evaluations",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("run", sa.Text, sa.ForeignKey("runs.id"), nullable=False),
        sa.Column("dataset_id", sa.Integer, sa.ForeignKey("datasets.id"), nullable=False),
        sa.Column("model_id", sa.Integer, sa.ForeignKey("models.id"), nullable=False),
        sa.Column("ordinal", sa.Integer, nullable=False),
        sa.Column("prompt", sa.Text, nullable=False),
        sa.Column("correct_answer", sa.Text, nullable=False),
        sa.Column("prediction", sa.Text),
        sa.Column("inference_start_time", UtcDateTime),
        sa.Column("inference_end_time", UtcDateTime),
        sa.Column("inference_reference", sa.Text),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("fence", sa.Integer, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("started", sa.Boolean, nullable=False),
        sa.Column("leased_by", sa.Text),
        sa.Column("leased_until", UtcDateTime),
        sa.Column("not_before", UtcDateTime),
        sa.Column("sum_logprobs", Json),
        sa.Column("predictions", Json),
        sa.Column("reply", sa.Text),
        sa.Column("latency_microseconds", sa.BigInteger),
        sa.Column("worker", sa.Text),
        sa.Column("engine_build", sa.Text),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("reason_code", sa.Text, nullable=False),
        sa.UniqueConstraint("run", "dataset_id"),
    )
    op.create_index("ix_evaluations_open", "evaluations", ["run", "state", "ordinal"])
    op.create_index("ix_evaluations_leased", "evaluations", ["state", "leased_until"])
    secret_values = op.create_table(
        "secrets",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("value", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "seen_tokens",
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("jti", sa.Text, nullable=False),
        sa.Column("method", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("response", sa.LargeBinary, nullable=False),
        sa.Column("expires", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("address", "jti"),
    )
    op.create_index("ix_seen_tokens_expires", "seen_tokens", ["expires"])
    op.bulk_insert(score_cursor, [{"id": 1, "cursor": 0}])
    op.bulk_insert(secret_values, [{"name": "choice-order", "value": secrets.token_bytes(32)}])
