"""Models: those that can be evaluated, as the herd knows them, and those that have been."""

from __future__ import annotations

from evalpool_dataset.herd import Herd
from evalpool_dataset.store import definitions
from evalpool_dataset.store.definitions import Model
from evalpool_runtime.database import Database
from evalpool_runtime.errors import NotFound, reasons


class Models:
    """Finds and lists models.

    Args:
        database: The service's database.
        herd: Knows the catalogue and the repository.
    """

    def __init__(self, database: Database, herd: Herd) -> None:
        self._database = database
        self._herd = herd

    async def find(self, digest: str, field: str) -> Model:
        """A model that can be evaluated.

        Args:
            digest: Its digest.
            field: The request's field that names it.

        Raises:
            NotFound: Neither the catalogue nor the repository has it.
        """
        found = await self._herd.find_model(digest)
        if found is None:
            raise NotFound(
                reasons.ERROR_REASON_MODEL_NOT_FOUND,
                f"{field}: the herd knows no model with the digest {digest}; name one of "
                "`evalpool model list`, or upload yours with `evalpool model push`",
                digest=digest,
            )
        return found

    async def page(self, after: tuple[str, int], limit: int) -> list[Model]:
        """Models that have been evaluated here, by name and number, after one."""
        return await self._database.read(lambda c: definitions.list_models(c, after, limit))
