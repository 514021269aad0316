"""What the router can be told."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from evalpool_router.prices import Prices
from evalpool_router.scheduler import Rules
from evalpool_runtime.settings import Address, Addresses, ServiceSettings

GIB = 1024**3
DEFAULT_MODEL = "SmolLM2-135M-Instruct.Q4_1"


class RouterSettings(ServiceSettings):
    """Settings of the router service."""

    model_config = SettingsConfigDict(env_prefix="EVALPOOL_ROUTER_", extra="forbid", frozen=True)

    admitted_workers: Addresses = Field(
        (),
        description="Addresses of workers that are admitted for every kind of work, separated by "
        "commas. AdmitWorker admits further ones, and narrows these.",
    )
    dataset_address: Address = Field(
        "", description="The dataset service's address: it alone may call ScoreChoices."
    )
    token_endpoint: str = Field(
        "",
        description="Where the token service answers, host:port. Needed where inference is paid.",
    )
    token_address: Address = Field(
        "", description="The token service's address: the ledger that holds are made on."
    )
    base_fee: int = Field(
        0,
        ge=0,
        le=10**18,
        description="Units that a request for inference costs, before the multiplier offered.",
    )
    token_fee: int = Field(
        0,
        ge=0,
        le=10**18,
        description="Units that a token costs, of the prompt or generated, before the multiplier "
        "offered. With both fees 0 inference is free, and holds are not asked for.",
    )
    ledger_seconds: float = Field(
        10.0,
        gt=0,
        description="Seconds that a call to the token service may take, and after which one that "
        "failed is tried again.",
    )
    settle_seconds: float = Field(
        86_400.0,
        ge=60,
        description="Seconds that a hold must last beyond its request's deadline. An outage of the "
        "router or of the token service that is no longer costs the router nothing of what was "
        "used; a caller's hold that it cannot release returns as late. With the longest request "
        "it must fit into the token service's --max-hold-seconds.",
    )
    chat_model: str = Field(
        DEFAULT_MODEL,
        description="The model of Chat where a call names none: a digest, or a name in the "
        "catalogue. Everybody may run it, whoever uploaded it.",
    )
    judge_model: str = Field(
        DEFAULT_MODEL,
        description="The model of Evaluate where a call names none: a digest, or a name in the "
        "catalogue. Everybody may run it, whoever uploaded it.",
    )
    queue_units: int = Field(
        100_000, ge=1, description="Questions and requests that may wait at most."
    )
    queue_bytes: int = Field(
        128 * 1024**2,
        ge=1024**2,
        description="Bytes of requests to hold at most, waiting or under way.",
    )
    caller_share: float = Field(
        0.8, gt=0, le=1, description="The part of the queue that one caller may fill."
    )
    ageing_seconds: float = Field(
        60.0,
        gt=0,
        description="Waiting this many seconds weighs as much as offering twice the multiplier.",
    )
    packages_per_worker: int = Field(
        2, ge=1, description="Packages of questions at a worker at once, within its slots."
    )
    smallest_package: int = Field(
        16, ge=1, description="Questions in a package at least, where there are as many."
    )
    largest_package: int = Field(64, ge=1, description="Questions in a package at most.")
    package_tokens: int = Field(
        16_384, ge=1, description="Estimated tokens in a package at most, one question aside."
    )
    losses: int = Field(
        3,
        ge=1,
        description="How many workers may be lost over a question or prompt before it is given up.",
    )
    tries: int = Field(
        3,
        ge=1,
        description="How many workers may fail a question, or a request of which nobody has "
        "answered anything, by trouble that may be their own (they cannot fetch or load the model, "
        "or their engine fails), before it is given up.",
    )
    crashes: int = Field(
        5,
        ge=1,
        description="How many workers may break off in a row while they are at a model, which "
        "answers nothing meanwhile, before its requests end and it is not tried for a minute, and "
        "then for twice as long each time. A model that has answered before may lose each worker "
        "once more.",
    )
    lease_seconds: float = Field(
        15.0, gt=0, description="Seconds that a worker's lease lasts from each heartbeat."
    )
    heartbeat_seconds: float = Field(
        5.0, gt=0, description="Seconds between a worker's heartbeats; less than half of the lease."
    )
    hung_seconds: float = Field(
        600.0,
        gt=0,
        description="Seconds that a busy worker may get nowhere, although its heart beats, before "
        "it is treated as lost.",
    )
    infer_seconds: float = Field(
        600.0, gt=0, description="Seconds that Infer, Chat and Evaluate may take at most."
    )
    score_seconds: float = Field(
        3600.0, gt=0, description="Seconds that ScoreChoices may take at most."
    )
    progress_seconds: float = Field(
        1.0,
        gt=0,
        description="Seconds without a result after which ScoreChoices says how it stands, and "
        "Infer and Chat that no worker can take it.",
    )
    upload_quota: int = Field(20 * GIB, ge=0, description="Bytes that one owner may upload in all.")
    repository_bytes: int = Field(
        500 * GIB, ge=0, description="Bytes that all uploads together may take."
    )
    repository_dir: Path | None = Field(
        None,
        description="Where uploaded models are kept. Not for other programs. Default: repository "
        "in the data directory.",
    )
    upload_days: float = Field(
        7.0, gt=0, description="Days that an unfinished upload is kept to be resumed."
    )

    @model_validator(mode="after")
    def _leases_outlast_a_late_heartbeat(self) -> Self:
        """One heartbeat may be lost without the worker being taken for dead."""
        if self.heartbeat_seconds * 2 >= self.lease_seconds:
            raise ValueError(
                f"{self._flag('heartbeat_seconds')}: it is {self.heartbeat_seconds:g} and a lease "
                f"lasts {self.lease_seconds:g}; give less than half of that"
            )
        return self

    @model_validator(mode="after")
    def _paid_inference_has_a_ledger(self) -> Self:
        if self.prices().paid and not self.token_endpoint:
            raise ValueError(
                f"{self._flag('token_endpoint')}: it is empty and inference has a price; give "
                "where the token service answers, or no --base-fee and --token-fee"
            )
        return self

    @property
    def longest_request(self) -> float:
        """Seconds that a request for inference may take at most, whichever it is."""
        return max(self.infer_seconds, self.score_seconds)

    def prices(self) -> Prices:
        """What inference costs."""
        return Prices(self.base_fee, self.token_fee)

    def rules(self) -> Rules:
        """What the scheduler goes by."""
        return Rules(
            queue_units=self.queue_units,
            queue_bytes=self.queue_bytes,
            caller_share=self.caller_share,
            ageing_seconds=self.ageing_seconds,
            packages_per_worker=self.packages_per_worker,
            smallest_package=min(self.smallest_package, self.largest_package),
            largest_package=self.largest_package,
            package_tokens=self.package_tokens,
            losses=self.losses,
            tries=self.tries,
            crashes=self.crashes,
            lease_seconds=self.lease_seconds,
            hung_seconds=self.hung_seconds,
        )
