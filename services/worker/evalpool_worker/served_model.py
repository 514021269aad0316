"""The one model of a worker whose engine asks a server: nothing is fetched, loaded or evicted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

from evalpool_runtime.errors import FailedPrecondition, reasons
from evalpool_worker.engine.base import Engine
from evalpool_worker.engine.errors import ModelLoadError
from evalpool_worker.engine.info import EngineLoad
from evalpool_worker.model_host import LoadedModel, Progress


class ServedModel:
    """A server's model, by the digest that the operator vouches for.

    Args:
        engine: What asks the server.
        digest: The only model that is answered for.
        name: Its name, for people.
    """

    def __init__(self, engine: Engine, digest: str, name: str) -> None:
        self._engine = engine
        self._digest = digest
        self._name = name
        self._users = 0
        self._seeing = asyncio.Lock()
        self._problem = ""
        self._log = structlog.get_logger("evalpool.worker.served_model")

    @property
    def loaded(self) -> list[LoadedModel]:
        """The model, once its server was seen."""
        info = self._engine.info
        return [] if info is None else [LoadedModel(self._digest, self._name, 0, info, self._users)]

    @property
    def load_now(self) -> EngineLoad:
        """What is asked of the server at this moment; from any thread."""
        return self._engine.load_now

    @property
    def computed_tokens(self) -> int:
        """Tokens of prompts and texts since the start; never falls."""
        load = self._engine.load_now
        return load.prompt_tokens + load.completion_tokens

    @asynccontextmanager
    async def using(
        self, digest: str, name: str, sources: Sequence[str], progress: Progress
    ) -> AsyncIterator[Engine]:
        """Use the model for the length of a block.

        Raises:
            FailedPrecondition: It is another one, or its server can't be used.
        """
        if digest != self._digest:
            raise FailedPrecondition(
                reasons.ERROR_REASON_MODEL_FETCH_FAILED,
                f"model.digest: this worker's server runs {self._digest}, by its operator's word, "
                "and nothing else; name that, or ask another worker",
                digest=digest,
            )
        self._users += 1
        try:
            try:
                await self._see()
            except ModelLoadError as error:
                raise FailedPrecondition(
                    reasons.ERROR_REASON_MODEL_LOAD_FAILED,
                    f"model.digest: this worker's server can't be used: {error}",
                    digest=digest,
                ) from error
            yield self._engine
        finally:
            self._users -= 1

    async def look(self) -> None:
        """Look for the server, so that its model counts as loaded before it is used."""
        try:
            await self._see()
            self._problem = ""
        except ModelLoadError as error:
            # Once a problem, not once a look.
            if str(error) != self._problem:
                self._log.warning("the server can't be used yet", detail=str(error))
            self._problem = str(error)

    async def unload(self, digest: str) -> None:
        """Refuse: the server's memory is not this worker's.

        Raises:
            FailedPrecondition: Always.
        """
        raise FailedPrecondition(
            reasons.ERROR_REASON_MODEL_NOT_FOUND,
            "digest: this worker's model is a server's, and not to be unloaded; stop the worker",
        )

    async def close(self) -> None:
        """End what streams."""
        await self._engine.close()

    async def _see(self) -> None:
        async with self._seeing:
            if self._engine.info is None:
                await self._engine.load(Path(), self._digest)
