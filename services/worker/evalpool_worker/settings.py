"""What a worker can be told."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode, SettingsConfigDict

from evalpool_runtime.settings import Address, Addresses, ServiceSettings


def _half_of_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _split(value: object) -> object:
    return tuple(filter(None, value.split(","))) if isinstance(value, str) else value


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
        "commas.",
    )
    slots: int = Field(16, ge=1, le=1024, description="Requests that it takes at a time.")
    engine: Literal["llama_cpp", "fake"] = Field(
        "llama_cpp", description="The engine; fake gives made-up answers, for tests."
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
