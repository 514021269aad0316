"""The benchmark service's settings."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from evalpool_runtime.settings import Address, ServiceSettings


class BenchmarkSettings(ServiceSettings):
    """What the benchmark service can be told."""

    model_config = SettingsConfigDict(env_prefix="EVALPOOL_BENCHMARK_", extra="forbid", frozen=True)

    token_endpoint: str = Field(
        "127.0.0.1:50051", description="Where the token service answers, host:port."
    )
    token_address: Address = Field("", description="The token service's address.")
    dataset_endpoint: str = Field(
        "127.0.0.1:50053", description="Where the dataset service answers, host:port."
    )
    dataset_address: Address = Field("", description="The dataset service's address.")
    peer_timeout: float = Field(
        10.0, gt=0, description="Seconds that a call to another service may take."
    )
    retry_seconds: float = Field(
        5.0, gt=0, description="Seconds after which work that another service refused is retried."
    )
    follow_seconds: float = Field(
        300.0, gt=0, description="Seconds between sweeps that ask for the score of open entries."
    )
    snapshot_seconds: float = Field(
        86_400.0, gt=0, description="Seconds between snapshots of every running leaderboard."
    )
    allocation_seconds: float = Field(
        86_400.0,
        gt=0,
        description="Seconds between sweeps over ended pools. Each pool's own end wakes the sweep "
        "as well.",
    )
    watch_poll_seconds: float = Field(
        2.0, gt=0, description="Seconds after which a watch looks for changes by other replicas."
    )
    lease_seconds: float = Field(
        30.0,
        gt=0,
        description="Seconds after which another replica takes over lost work, and between looks "
        "for sweeps that are due.",
    )
