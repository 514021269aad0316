"""What can be evaluated, and what has been: models, and on retrieval datasets document sets."""

from __future__ import annotations

from dataclasses import replace

from evalpool_dataset.herd import Herd, Work
from evalpool_dataset.library import Library
from evalpool_dataset.parts import Parameters
from evalpool_dataset.store import definitions
from evalpool_dataset.store.definitions import Model
from evalpool_runtime.database import Database
from evalpool_runtime.errors import NotFound, Unavailable, reasons


class Models:
    """Finds and lists what is evaluated.

    Args:
        database: The service's database.
        herd: Knows the catalogue and the repository.
        library: Knows the document sets.
    """

    def __init__(self, database: Database, herd: Herd, library: Library) -> None:
        self._database = database
        self._herd = herd
        self._library = library

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

    async def find_subject(self, chosen: Parameters, digest: str) -> Model:
        """What is to be evaluated: a model, or on a retrieval dataset a document set.

        Raises:
            NotFound: There is none with the digest.
            FailedPrecondition: A document set has no vectors yet.
            Unavailable: The embedding service cannot be asked.
        """
        if chosen.retrieval is None:
            return await self.find(digest, "subject")
        found = await self._library.find(digest, chosen.retrieval.embedder)
        if found is None:
            raise NotFound(
                reasons.ERROR_REASON_DOCUMENT_SET_NOT_FOUND,
                f"subject: there is no document set with the digest {digest}; on this dataset "
                "document sets are entered, and `evalpool documents list` shows yours",
                dataset_hash=digest,
            )
        return found

    async def settled(self, chosen: Parameters, before: Parameters | None) -> Parameters:
        """What an owner chose, with the models named that judge, answer and find documents.

        Args:
            chosen: What the owner chose; empty digests stand for the herd's own models.
            before: What the dataset was made with, where there is one of that id already: made
                again alike, it stays as it is, though the herd's own models may be others now.

        Raises:
            NotFound: The herd does not know a model.
            Unavailable: The herd has none of its own, or the embedding service cannot be asked.
        """
        if chosen.judge is not None:
            known = before.judge.model if before and before.judge else ""
            model = await self._settle(chosen.judge.model, known, Work.JUDGE, "judge.model")
            chosen = replace(chosen, judge=replace(chosen.judge, model=model))
        if chosen.retrieval is not None:
            made = before.retrieval if before else None
            known = made.model if made else ""
            model = await self._settle(chosen.retrieval.model, known, Work.CHAT, "retrieval.model")
            embedder = made.embedder if made else await self._library.embedder()
            retrieval = replace(chosen.retrieval, model=model, embedder=embedder)
            chosen = replace(chosen, retrieval=retrieval)
        return chosen

    async def page(self, after: tuple[str, int], limit: int) -> list[Model]:
        """Models that have been evaluated here, by name and number, after one."""
        return await self._database.read(lambda c: definitions.list_models(c, after, limit))

    async def _settle(self, named: str, known: str, work: Work, field: str) -> str:
        if named:
            return (await self.find(named, field)).digest
        digest = known or await self._herd.default_model(work)
        if not digest:
            raise Unavailable(
                reasons.ERROR_REASON_UNAVAILABLE,
                f"{field}: the herd has no model of its own for this; name one by its digest",
            )
        return digest
