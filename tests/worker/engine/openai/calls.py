"""How a scripted server is told what to answer, and the engine asked."""

from __future__ import annotations

from evalpool_worker.engine.base import (
    UNKNOWN_TOKEN,
    GenerationChunk,
    GenerationEnd,
    Prompt,
    SamplingParameters,
)
from evalpool_worker.engine.openai import OpenAIEngine
from tests.worker.engine.scripted_server import (
    Asked,
    Connection,
    ScriptedServer,
)

GREEDY = SamplingParameters(max_tokens=24, temperature=0.0)
KEY = "sk-very-secret"


async def generate(
    engine: OpenAIEngine, prompt: Prompt = "Hello", parameters: SamplingParameters = GREEDY
) -> tuple[str, GenerationEnd]:
    *chunks, end = [event async for event in engine.generate(prompt, parameters)]
    assert isinstance(end, GenerationEnd)
    texts = [chunk for chunk in chunks if isinstance(chunk, GenerationChunk)]
    assert sum(len(chunk.token_ids) for chunk in texts) == end.completion_tokens
    assert {number for chunk in texts for number in chunk.token_ids} <= {UNKNOWN_TOKEN}
    return "".join(chunk.text for chunk in texts), end


def tells(server: ScriptedServer, *events: object) -> None:
    async def answer(_: Asked, connection: Connection) -> None:
        await connection.stream(*events)

    server.answer = answer


def refuses(server: ScriptedServer, status: int, answer: object, **headers: str) -> None:
    async def refuse(_: Asked, connection: Connection) -> None:
        await connection.whole(status, answer, **headers)

    server.answer = refuse
