"""What requests that do not say get: as calls have set it, otherwise as the settings have it."""

from __future__ import annotations

import asyncio

from sqlalchemy import Connection

from evalpool_runtime.database import Database
from evalpool_worker.settings import WorkerSettings
from evalpool_worker.store import read_setting


class Defaults:
    """The settings that calls change.

    Args:
        database: Where they are kept.
        settings: What holds until a call has set it.

    Attributes:
        max_tokens: Tokens to generate at most.
        system_prompt: The system prompt of conversations that have none.
    """

    def __init__(self, database: Database, settings: WorkerSettings) -> None:
        self._database = database
        self._settings = settings
        self._reading = asyncio.Lock()
        self.max_tokens = settings.max_tokens
        self.system_prompt = settings.system_prompt

    async def refresh(self) -> None:
        """Take over what the database says."""
        # One at a time: an older reading must not come after a newer one.
        async with self._reading:
            max_tokens, system_prompt = await self._database.read(_read)
            self.max_tokens = self._settings.max_tokens if max_tokens is None else max_tokens
            self.system_prompt = (
                self._settings.system_prompt if system_prompt is None else system_prompt
            )


def _read(connection: Connection) -> tuple[int | None, str | None]:
    return read_setting(connection, "max_tokens"), read_setting(connection, "system_prompt")
