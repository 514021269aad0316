"""What the dataset service can be told."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from evalpool_runtime.settings import Address, ServiceSettings


class DatasetSettings(ServiceSettings):
    """Settings of the dataset service."""

    model_config = SettingsConfigDict(env_prefix="EVALPOOL_DATASET_", extra="forbid", frozen=True)

    router_endpoint: str = Field(
        "127.0.0.1:50054", description="The router that inference is asked of, host:port."
    )
    router_address: Address = Field("", description="That router's address.")
    token_endpoint: str = Field(
        "",
        description="Where the token service answers, host:port. Needed where the router wants to "
        "be paid: evaluations are paid from the dataset service's own account.",
    )
    token_address: Address = Field("", description="The token service's address.")
    embedding_endpoint: str = Field(
        "",
        description="Where the embedding service answers, host:port. Needed for datasets that "
        "document sets are entered for.",
    )
    embedding_address: Address = Field("", description="That embedding service's address.")
    benchmark_address: Address = Field(
        "", description="The address of the benchmark service, which may start runs."
    )
    max_file_bytes: int = Field(
        64 << 20, ge=1, description="Bytes of one file of questions at most; it is read in memory."
    )
    chunk_questions: int = Field(
        256,
        ge=1,
        le=1000,
        description="Questions of one run that are leased and sent to the router together.",
    )
    concurrent_chunks: int = Field(
        4, ge=1, le=64, description="How many such chunks are under way at a time."
    )
    concurrent_replies: int = Field(
        16, ge=1, le=256, description="Replies that one chunk waits for at a time."
    )
    lease_seconds: float = Field(
        60.0, ge=1, description="How long an evaluation is leased; renewed while its call is open."
    )
    max_tries: int = Field(
        5,
        ge=1,
        le=100,
        description="Tries of one question that a worker began, until it counts as failed.",
    )
    max_failed_starts: int = Field(
        20,
        ge=1,
        le=1000,
        description="Tries of one question that failed before a worker began, until it counts as "
        "failed; with the pauses between them 20 take about an hour.",
    )
    evaluate_seconds: float = Field(
        3600.0, ge=1, description="Seconds between the safety sweeps over open evaluations."
    )
