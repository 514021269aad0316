"""The embedding service's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_settings import SettingsConfigDict

from evalpool.models.catalogue import catalogue, find_model
from evalpool.models.errors import ModelNotFound
from evalpool.models.store import default_store_root
from evalpool_embedding.chroma import parse_header
from evalpool_runtime.settings import Address, HostPortOrEmpty, ServiceSettings


def _known_files() -> list[str]:
    return [each.name for each in catalogue() if each.kind == "embedding" and each.sha256]


def _in_catalogue(name: str) -> str:
    try:
        found = find_model(name).name
    except ModelNotFound:
        return ""
    return found if found in _known_files() else ""


def _tokenizer(name: str) -> str:
    found = _in_catalogue(name)
    if not found:
        raise ValueError(
            f"the catalogue has no embedding model {name[:80]!r}; it has "
            f"{', '.join(_known_files())}"
        )
    return found


def _model(name: str) -> str:
    found = _in_catalogue(name)
    if found:
        return found
    # What is in the catalogue is no path, and what is not has to be one.
    path = Path(name).absolute()
    if not name or not path.exists():
        raise ValueError(
            f"{name[:80]!r} is neither in the catalogue, which has {', '.join(_known_files())}, "
            "nor the path of a folder with an ONNX export or of a GGUF file"
        )
    return str(path)


def _header(text: str) -> str:
    if text:
        parse_header(text)
    return text


ModelName = Annotated[str, AfterValidator(_model)]
"""The catalogue's name of an embedding model whose digest is known, or an absolute path."""

TokenizerName = Annotated[str, AfterValidator(_tokenizer)]
"""The catalogue's name of a file whose digest is known."""

Header = Annotated[str, AfterValidator(_header)]
"""An HTTP header, "name: value", or empty."""


class EmbeddingSettings(ServiceSettings):
    """What the embedding service can be told."""

    model_config = SettingsConfigDict(env_prefix="EVALPOOL_EMBEDDING_", extra="forbid", frozen=True)

    dataset_address: Address = Field(
        "",
        description="The dataset service's address; it may search sets that are entered in pools.",
    )
    model: ModelName = Field(
        "all-MiniLM-L6-v2-int8",
        description="The embedding model: its name in the catalogue, or the path of a folder with "
        "a Hugging Face ONNX export, or of a GGUF file. With another one all sets are embedded "
        "again.",
    )
    tokenizer: TokenizerName = Field(
        "all-MiniLM-L6-v2-tokenizer",
        description="The tokenizer of a model of the catalogue, by its name there.",
    )
    models_dir: Path = Field(
        default_factory=default_store_root,
        description="The model store. Default: EVALPOOL_MODEL_STORE, else one in the user's cache.",
    )
    chroma_path: Path | None = Field(
        None, description="Where Chroma keeps its files. Default: chroma in the data directory."
    )
    chroma_server: HostPortOrEmpty = Field(
        "",
        description="A Chroma server that keeps the vectors instead, host:port. Empty: Chroma runs "
        "in this process.",
    )
    chroma_ssl: bool = Field(False, description="Whether the Chroma server is asked over TLS.")
    chroma_header: Header = Field(
        "",
        repr=False,
        description='A header for the Chroma server, such as "authorization: Bearer …" or '
        '"x-chroma-token: …". Give it by the environment, where other users do not see it.',
    )
    threads: int = Field(
        2, ge=1, le=2, description="Threads that compute one batch of texts, 1 or 2."
    )
    max_documents: int = Field(
        100_000,
        ge=1,
        description="Documents in a set, at most. Chroma holds the vectors of searched sets in "
        "memory, 2 KB each.",
    )
