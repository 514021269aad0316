"""The catalogue as the router sees it: language models, by digest and by name."""

from __future__ import annotations

from functools import cache

from evalpool.models import CatalogueModel, catalogue
from evalpool_router.models import Model


@cache
def catalogue_models() -> tuple[Model, ...]:
    """The catalogue's language models, in its order."""
    return tuple(_model(entry) for entry in catalogue() if entry.kind == "language")


def find_in_catalogue(text: str) -> Model | None:
    """The catalogue's model with this digest, or this name without regard to case."""
    for model in catalogue_models():
        if (text and text in (model.digest, model.name)) or text.lower() == model.name.lower():
            return model
    return None


def _model(entry: CatalogueModel) -> Model:
    return Model(
        digest=entry.sha256 or "",
        name=entry.name,
        source=str(entry.source),
        size_bytes=entry.size_bytes or 0,
        license=entry.license,
        context_length=entry.context_length or 0,
    )
