"""What a worker can be told."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from evalpool.values import InvalidValue, parse_digest
from evalpool_runtime.settings import Address, Addresses, ServiceSettings
from evalpool_worker.engine.openai_request import Dialect, takes_grammars


def _half_of_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _split(value: object) -> object:
    return tuple(filter(None, value.split(","))) if isinstance(value, str) else value


def _server_url(value: object) -> object:
    if not isinstance(value, str) or not value:
        return value
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError('give a URL, such as "http://127.0.0.1:8000/v1"')
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("leave out user, query and fragment; a key goes into --openai-key-file")
    return value


def _digest_or_empty(value: object) -> object:
    if isinstance(value, str) and value:
        try:
            return parse_digest(value)
        except InvalidValue as error:
            raise ValueError(str(error)) from error
    return value


ServerUrl = Annotated[str, BeforeValidator(_server_url)]
Digest = Annotated[str, BeforeValidator(_digest_or_empty)]
Kind = Literal["evaluate", "chat", "judge"]
Kinds = Annotated[tuple[Kind, ...], NoDecode, BeforeValidator(_split)]
Folders = Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_split)]


class WorkerSettings(ServiceSettings):
    """Settings of the worker service."""

    model_config = SettingsConfigDict(env_prefix="EVALPOOL_WORKER_", extra="forbid", frozen=True)

    router_endpoint: str = Field(
        "", description="The router that it offers itself to, host:port. Empty: none."
    )
    router_address: Address = Field("", description="That router's address.")
    admitted_routers: Addresses = Field(
        (),
        description="Addresses that may give it work, separated by commas. The router's address "
        "is always among them.",
    )
    advertise: str = Field(
        "", description="Where the router reaches it, host:port. Default: where it listens."
    )
    kinds: Kinds = Field(
        ("evaluate", "chat", "judge"),
        description="The kinds of work that it takes, of evaluate, chat and judge, separated by "
        "commas. The engine openai does not take evaluate, and judge only by a dialect that has "
        "grammars.",
    )
    slots: int = Field(16, ge=1, le=1024, description="Requests that it takes at a time.")
    engine: Literal["llama_cpp", "openai", "fake"] = Field(
        "llama_cpp",
        description="The engine: llama_cpp computes here; openai asks an OpenAI-compatible server, "
        "but scores nothing; fake gives made-up answers, for tests.",
    )
    openai_url: ServerUrl = Field(
        "",
        description="The base URL of the server that the engine openai asks, such as "
        "http://127.0.0.1:8000/v1.",
    )
    openai_model: str = Field("", max_length=256, description="The model's name on that server.")
    openai_digest: Digest = Field(
        "",
        description="The SHA-256 of the model that the operator vouches that server runs. Answers "
        "name it, and say that it is vouched for.",
    )
    openai_dialect: Dialect = Field(
        "openai",
        description="What that server takes beside OpenAI's own parameters: llama_cpp top_k, "
        "min_p, repeat_penalty and grammar; vllm top_k, min_p and grammar; openai nothing.",
    )
    openai_key: SecretStr | None = Field(
        None,
        description="The API key for that server. Give it by the environment or a file: everybody "
        "on the machine sees flags.",
    )
    openai_key_file: Path | None = Field(
        None, description="A file with that API key, in place of --openai-key."
    )
    openai_silent_seconds: float = Field(
        120.0,
        gt=0,
        le=86_400,
        description="Seconds that that server may send nothing, before an answer or within it, "
        "until the request fails.",
    )
    threads: int = Field(
        0, ge=0, description="Threads to compute with. 0: the cores, shared by workers_on_host."
    )
    gpu_layers: int = Field(
        -1,
        ge=-1,
        le=100_000,
        description="Layers of a model for a GPU to compute, where the engine's build has one; the "
        "others are the processor's. -1: all. 0: none.",
    )
    workers_on_host: int = Field(
        1, ge=1, description="How many workers share this machine's cores."
    )
    models_dir: Path | None = Field(
        None,
        description="Where model files are kept; workers of one host may share it. Default: "
        "models in the data directory.",
    )
    store_bytes: int | None = Field(
        None,
        ge=0,
        description="Bytes of model files to keep at most; those that were unused the longest go "
        "first. 0: no limit. Default: half of what the folder holds and its file system has free.",
    )
    memory_bytes: int = Field(
        default_factory=_half_of_memory,
        ge=1,
        description="Bytes of model files to have loaded at most. Default: half of the memory.",
    )
    file_roots: Folders = Field(
        (), description="Folders from which file: sources may be fetched, separated by commas."
    )
    max_tokens: int = Field(
        256, ge=1, le=131_072, description="Tokens to generate at most, unless a request says."
    )
    system_prompt: str = Field(
        "", max_length=16_384, description="The system prompt of conversations that have none."
    )

    @model_validator(mode="after")
    def _server_is_known(self) -> Self:
        """An engine that asks a server needs to know which, and for which model."""
        if self.engine != "openai":
            return self
        for name in ("openai_url", "openai_model", "openai_digest"):
            if not getattr(self, name):
                raise ValueError(f"{self._flag(name)}: it is empty; the engine openai needs it")
        if self.openai_key is not None and self.openai_key_file is not None:
            raise ValueError(f"{self._flag('openai_key')}: there is a key file too; give one")
        if "kinds" in self.model_fields_set and "evaluate" in self.kinds:
            raise ValueError(
                f"{self._flag('kinds')}: the engine openai scores nothing; leave out evaluate"
            )
        if "kinds" in self.model_fields_set and set(self.kinds) - set(self.offered_kinds):
            raise ValueError(
                f"{self._flag('kinds')}: judging needs a grammar, which the server does not take "
                "by --openai-dialect; leave out judge"
            )
        return self

    @property
    def offered_kinds(self) -> tuple[Kind, ...]:
        """The kinds of work that it offers: without those that its engine is not able to do."""
        if self.engine != "openai":
            return self.kinds
        able = ("chat", "judge") if takes_grammars(self.openai_dialect) else ("chat",)
        return tuple(kind for kind in self.kinds if kind in able)

    @property
    def only_models(self) -> tuple[str, ...]:
        """The models that it takes, where it takes no others: a server runs its own alone."""
        return (self.openai_digest,) if self.engine == "openai" else ()
