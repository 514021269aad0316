"""The models that evalpool knows by name, from `catalogue.json`.

A model without `sha256` in the catalogue has to be pulled once from its source to learn its digest;
the pull prints it. Digests are never taken from anywhere but the bytes.
"""

from __future__ import annotations

import importlib.resources
import json
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeAlias

from evalpool.values import parse_digest

from .errors import ModelNotFound
from .sources import Source, parse_source

Kind: TypeAlias = Literal["language", "embedding"]


@dataclass(frozen=True, slots=True)
class CatalogueModel:
    """A model's file, where it comes from and what it must be.

    Attributes:
        name: Unique in the catalogue.
        kind: "language" for GGUF files that llama.cpp loads, "embedding" for the embedding
            service's files.
        source: Where the file comes from.
        sha256: Its digest; None where it has to be learnt from the first pull.
        size_bytes: Its exact size; None where it is not known.
        license: An SPDX expression; `LicenseRef-…` for terms that SPDX does not list.
        license_url: Where the terms can be read.
        context_length: The tokens that it was trained to attend to; None for files without.
        description: One sentence.
    """

    name: str
    kind: Kind
    source: Source
    sha256: str | None
    size_bytes: int | None
    license: str
    license_url: str
    context_length: int | None
    description: str


@cache
def catalogue() -> tuple[CatalogueModel, ...]:
    """Give all models, in the catalogue's order."""
    text = importlib.resources.files(__package__).joinpath("catalogue.json").read_text("utf-8")
    return tuple(_model(entry) for entry in json.loads(text)["models"])


def find_model(name: str) -> CatalogueModel:
    """Give the model of this name, without regard to case.

    Raises:
        ModelNotFound: There is none; the message names those that there are.
    """
    for model in catalogue():
        if model.name.lower() == name.lower():
            return model
    names = ", ".join(model.name for model in catalogue())
    raise ModelNotFound(f"the catalogue has no model {name[:80]!r}; it has {names}")


def find_digest(digest: str) -> CatalogueModel | None:
    """Give the model with this digest, None if the catalogue has none."""
    return next((model for model in catalogue() if model.sha256 == digest), None)


def _model(entry: dict[str, Any]) -> CatalogueModel:
    sha256 = entry.pop("sha256")
    return CatalogueModel(
        source=parse_source(entry.pop("source")),
        sha256=None if sha256 is None else parse_digest(sha256),
        **entry,
    )
