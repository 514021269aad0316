"""The embedding service's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_settings import SettingsConfigDict

from evalpool.models.catalogue import catalogue, find_model
from evalpool.models.errors import ModelNotFound
from evalpool.models.store import default_store_root
from evalpool_runtime.settings import Address, ServiceSettings


def _embedding_file(name: str) -> str:
    known = [each.name for each in catalogue() if each.kind == "embedding" and each.sha256]
    try:
        found = find_model(name).name
    except ModelNotFound:
        found = ""
    if found not in known:
        raise ValueError(
            f"the catalogue has no embedding model {name[:80]!r}; it has {', '.join(known)}"
        )
    return found


EmbeddingFile = Annotated[str, AfterValidator(_embedding_file)]
"""The name that a file of an embedding model, whose digest is known, has in the catalogue."""


class EmbeddingSettings(ServiceSettings):
    """What the embedding service can be told."""

    model_config = SettingsConfigDict(env_prefix="EVALPOOL_EMBEDDING_", extra="forbid", frozen=True)

    dataset_address: Address = Field(
        "",
        description="The dataset service's address; it may search sets that are entered in pools.",
    )
    model: EmbeddingFile = Field(
        "all-MiniLM-L6-v2-int8", description="The embedding model, by its name in the catalogue."
    )
    tokenizer: EmbeddingFile = Field(
        "all-MiniLM-L6-v2-tokenizer",
        description="The model's tokenizer, by its name in the catalogue.",
    )
    models_dir: Path = Field(
        default_factory=default_store_root,
        description="The model store. Default: EVALPOOL_MODEL_STORE, else one in the user's cache.",
    )
    chroma_path: Path | None = Field(
        None, description="Where Chroma keeps its files. Default: chroma in the data directory."
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
