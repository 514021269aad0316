"""What the token service can be told."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from evalpool_runtime.settings import ServiceSettings


class TokenSettings(ServiceSettings):
    """Settings of the token service."""

    model_config = SettingsConfigDict(env_prefix="EVALPOOL_TOKEN_", extra="forbid", frozen=True)

    currency_name: str = Field(
        "evalpool units", min_length=1, max_length=100, description="The currency's name."
    )
    ticker: str = Field(
        "EVAL", min_length=1, max_length=12, description="The currency's short sign."
    )
    denomination: int = Field(
        0,
        ge=0,
        le=38,
        description="How many of a quantity's digits stand behind the decimal point when it is "
        "shown; the ledger itself knows whole units only.",
    )
    max_hold_seconds: int = Field(
        7 * 86_400, ge=1, description="The longest time for which a hold may be made, in seconds."
    )
    max_batch_transfers: int = Field(
        10_000, ge=1, le=10_000, description="Transfers in one batch at most."
    )
