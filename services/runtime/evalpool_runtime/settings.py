"""Settings: from flags, then the environment, then defaults; one table documents them all.

A service's settings class sets `env_prefix` to `EVALPOOL_<SERVICE>_`; the flag of a field is its
name with hyphens.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import platformdirs
from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from evalpool.endpoints import HIGHEST_PORT
from evalpool.values import InvalidValue, parse_address


def default_data_dir() -> Path:
    """Where services keep their data unless told otherwise."""
    return Path(platformdirs.user_data_dir("evalpool", appauthor=False))


def _address_or_empty(value: Any) -> Any:
    if isinstance(value, str) and value:
        try:
            return parse_address(value)
        except InvalidValue as error:
            raise ValueError(str(error)) from error
    return value


def _address_list(value: Any) -> Any:
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    if isinstance(value, list | tuple):
        return tuple(_address_or_empty(part) for part in value)
    return value


def _host_and_port(value: Any) -> Any:
    if isinstance(value, str):
        host, _, port = value.rpartition(":")
        if not host or not port.isascii() or not port.isdigit() or int(port) > HIGHEST_PORT:
            raise ValueError('give host:port, such as "127.0.0.1:50051"')
    return value


def _host_and_port_or_empty(value: Any) -> Any:
    return value if value == "" else _host_and_port(value)


HostPort = Annotated[str, BeforeValidator(_host_and_port)]
"""Where to listen, host:port; port 0 takes a free one."""

HostPortOrEmpty = Annotated[str, BeforeValidator(_host_and_port_or_empty)]
"""Where to listen, or empty for nowhere."""

Address = Annotated[str, BeforeValidator(_address_or_empty)]
"""An address, or empty."""

Addresses = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_address_list)]
"""Addresses; in flags and the environment separated by commas."""


class InvalidSettings(ValueError):
    """Settings that break their rules; one line a setting."""


class ServiceSettings(BaseSettings):
    """What every service can be told."""

    model_config = SettingsConfigDict(env_prefix="EVALPOOL_", extra="forbid", frozen=True)

    listen: HostPort | None = Field(
        None,
        description="Where the service answers gRPC, host:port; port 0 takes a free one. Default: "
        "its own port on 127.0.0.1.",
    )
    metrics_listen: HostPortOrEmpty | None = Field(
        None,
        description="Where it answers GET /metrics, host:port. Empty: nowhere. Default: at the "
        "port of --listen + 4000, a free one where that is 0.",
    )
    data_dir: Path = Field(
        default_factory=default_data_dir, description="Where it keeps its files."
    )
    database_url: str = Field(
        "",
        description="Its database: sqlite:///path or postgresql+psycopg://user:password@host/name. "
        "Empty: SQLite in the data directory.",
    )
    key_file: Path | None = Field(
        None,
        description="Its Ed25519 key as a JWK, made at the first start. Default: "
        "keys/<service>.json in the data directory.",
    )
    operator: Address = Field(
        "",
        description="The operator's address. Default: that of keys/operator.json in the data "
        "directory, made at the first start.",
    )
    shutdown_grace: float = Field(
        10.0,
        ge=0,
        allow_inf_nan=False,
        description="Seconds that calls under way get when the service is stopped.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="What is logged."
    )
    log_format: Literal["text", "json"] = Field("text", description="How it is logged.")

    @model_validator(mode="after")
    def _peers_are_known(self) -> Self:
        """A call is signed for the address of the server called; without it none is accepted."""
        for name in type(self).model_fields:
            peer, _, kind = name.rpartition("_")
            endpoint, address = getattr(self, name), f"{peer}_address"
            if kind == "endpoint" and endpoint and getattr(self, address, None) == "":
                raise ValueError(
                    f"{self._flag(address)}: it is empty; give the address that GetInfo at "
                    f"{endpoint} tells"
                )
        return self

    @classmethod
    def load(cls, **values: Any) -> Self:
        """Settings from values given, the environment and defaults.

        Raises:
            InvalidSettings: With one line for each setting that breaks its rule.
        """
        try:
            return cls(**values)
        except ValidationError as error:
            lines = [cls._line(problem) for problem in error.errors()]
            raise InvalidSettings("\n".join(lines)) from error

    @classmethod
    def _line(cls, problem: ErrorDetails) -> str:
        text = " ".join(problem["msg"].removeprefix("Value error, ").split())
        if not problem["loc"]:  # a rule about several settings
            return text
        return f"{cls._flag(str(problem['loc'][0]))}: {text}"

    @classmethod
    def _flag(cls, name: str) -> str:
        prefix = cls.model_config.get("env_prefix", "")
        return f"--{name.replace('_', '-')} ({prefix}{name.upper()})"
