"""The engine `openai` on a scripted server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from evalpool_worker.engine.openai import OpenAIEngine, OpenAISettings
from tests.worker.engine.openai.calls import KEY
from tests.worker.engine.scripted_server import (
    MODEL,
    ScriptedServer,
    scripted_server,
)


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with scripted_server() as scripted:
        yield scripted


@pytest.fixture
def settings(server: ScriptedServer) -> OpenAISettings:
    return OpenAISettings(url=server.url, model=MODEL, key=KEY)


@pytest.fixture
async def engine(settings: OpenAISettings) -> AsyncIterator[OpenAIEngine]:
    engine = OpenAIEngine(settings)
    await engine.load(Path(), "vouched-digest")
    yield engine
    await engine.close()
