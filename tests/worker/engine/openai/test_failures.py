"""The engine `openai` against a server that does as it is told, most of it wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from evalpool_worker.engine.base import (
    FinishReason,
)
from evalpool_worker.engine.errors import (
    EngineBusyError,
    EngineError,
    InvalidParametersError,
    ModelLoadError,
    PromptTooLongError,
)
from evalpool_worker.engine.openai import OpenAIEngine, OpenAISettings
from tests.worker.engine.openai.calls import KEY, generate, refuses, tells
from tests.worker.engine.scripted_server import (
    Asked,
    Connection,
    ScriptedServer,
    piece,
)


@pytest.mark.parametrize(
    ("status", "answer", "headers", "sentence"),
    [
        (401, {"error": {"message": f"bad key {KEY}"}}, {}, r"refuses this worker's API key"),
        (403, b"", {}, r"refuses this worker's API key"),
        (404, {"error": {"message": "no such\nmodel"}}, {}, r"HTTP 404: no such model"),
        (500, {"object": "error", "message": "oh"}, {}, r"HTTP 500: oh"),
        (500, b"<html>", {}, r"HTTP 500: no reason given"),
        (302, b"", {"location": "http://127.0.0.1:1/"}, r"HTTP 302"),
        (
            429,
            {"error": {"code": "insufficient_quota", "message": ""}},
            {"retry_after": "1"},
            r"quota .* is used up",
        ),
    ],
)
async def test_a_refusal_is_told(
    server: ScriptedServer,
    engine: OpenAIEngine,
    status: int,
    answer: object,
    headers: dict[str, str],
    sentence: str,
) -> None:
    refuses(server, status, answer, **headers)
    with pytest.raises(EngineError, match=sentence) as refused:
        await generate(engine)
    assert type(refused.value) is EngineError
    assert KEY not in str(refused.value)


@pytest.mark.parametrize(
    ("status", "after", "seconds"),
    [
        (429, {"retry_after": "7"}, 7.0),
        (429, {"retry_after": "1e9"}, 60.0),
        (429, {"retry_after": "nan"}, 1.0),
        (429, {"retry_after": "Tue, 24 Nov 2026 12:00:00 GMT"}, 1.0),
        (503, {}, 1.0),
    ],
)
async def test_a_busy_server_is_a_busy_engine(
    server: ScriptedServer,
    engine: OpenAIEngine,
    status: int,
    after: dict[str, str],
    seconds: float,
) -> None:
    refuses(server, status, {"error": {"message": "slow down"}}, **after)
    with pytest.raises(EngineBusyError) as busy:
        await generate(engine)
    assert busy.value.retry_after == seconds


async def test_a_refused_prompt_or_parameter_is_named(
    server: ScriptedServer, engine: OpenAIEngine
) -> None:
    refuses(server, 400, {"error": {"message": "9 tokens", "code": "context_length_exceeded"}})
    with pytest.raises(PromptTooLongError, match="9 tokens"):
        await generate(engine)
    refuses(server, 400, {"error": {"message": "too hot", "param": "temperature"}})
    with pytest.raises(InvalidParametersError, match="too hot") as refused:
        await generate(engine)
    assert refused.value.field == "temperature"


@pytest.mark.parametrize(
    ("event", "sentence"),
    [
        ("{not json", "no JSON"),
        ("[1]", "no object"),
        ("{}", "without choices"),
        ('{"choices": [3]}', "can't be read"),
        ('{"choices": [{"text": 3}]}', "can't be read"),
        ('{"choices": [], "usage": {"prompt_tokens": "x"}}', "usage that can't be read"),
        ('{"error": {"message": "out of memory"}}', "The server failed: out of memory"),
        (piece("", "content_filter"), "a reason of its own: content_filter"),
    ],
)
async def test_garbage_in_a_stream_ends_it_as_an_error(
    server: ScriptedServer, engine: OpenAIEngine, event: object, sentence: str
) -> None:
    tells(server, piece("Once"), event, piece(" upon", "stop"), "[DONE]")
    text, end = await generate(engine)
    assert text == "Once"
    assert end.finish_reason is FinishReason.ERROR
    assert sentence in end.message
    # Where nothing has come yet, it is refused, so that another worker may try.
    tells(server, event, "[DONE]")
    with pytest.raises(EngineError):
        await generate(engine)


@pytest.mark.parametrize("garbage", [b"data: \xff\xfe\n\n", b"data: " + b"x" * 5_000_000])
async def test_bytes_that_are_no_event_end_the_stream(
    server: ScriptedServer, engine: OpenAIEngine, garbage: bytes
) -> None:
    async def answer(_: Asked, connection: Connection) -> None:
        await connection.stream(piece("Once"))
        await connection.raw(garbage)

    server.answer = answer
    text, end = await generate(engine)
    assert (text, end.finish_reason) == ("Once", FinishReason.ERROR)
    assert "The server sent an event" in end.message


async def test_a_stream_cut_in_the_middle_ends_as_an_error(
    server: ScriptedServer, engine: OpenAIEngine
) -> None:
    tells(server, piece("Once"), piece(" upon"))
    text, end = await generate(engine)
    assert (text, end.finish_reason) == ("Once upon", FinishReason.ERROR)
    assert end.message == "The server's answer ended in the middle."


async def test_an_answer_shorter_than_it_says_ends_as_an_error(
    server: ScriptedServer, engine: OpenAIEngine
) -> None:
    async def answer(_: Asked, connection: Connection) -> None:
        event = b'data: {"choices": [{"text": "Once"}]}\n\n'
        await connection.whole(200, event, content_length="4096")

    server.answer = answer
    text, end = await generate(engine)
    assert (text, end.message) == ("Once", "The server broke off.")


async def test_a_silent_server_is_given_up_before_and_within_its_answer(
    server: ScriptedServer, settings: OpenAISettings
) -> None:
    engine = OpenAIEngine(replace(settings, silent_seconds=0.2))
    await engine.load(Path(), "vouched-digest")

    async def says_nothing(_: Asked, connection: Connection) -> None:
        await connection.closed()

    server.answer = says_nothing
    with pytest.raises(EngineError, match=r"silent for 0\.2 s"):
        await generate(engine)

    async def stops_talking(_: Asked, connection: Connection) -> None:
        await connection.stream(piece("Once"))
        await connection.raw(b": only alive\n\n")
        await connection.closed()

    server.answer = stops_talking
    text, end = await generate(engine)
    assert (text, end.message) == ("Once", "The server was silent for 0.2 s.")
    await engine.close()


async def test_a_server_that_is_not_there_is_told(
    server: ScriptedServer, engine: OpenAIEngine, settings: OpenAISettings
) -> None:
    # Nobody listens at the discard port.
    nowhere = OpenAIEngine(replace(settings, url="http://127.0.0.1:9/v1"))
    with pytest.raises(ModelLoadError, match="can't be reached"):
        await nowhere.load(Path(), "vouched-digest")
    assert nowhere.info is None
    await nowhere.close()


async def test_a_model_that_the_server_does_not_list_is_not_there(
    server: ScriptedServer, settings: OpenAISettings
) -> None:
    engine = OpenAIEngine(replace(settings, model="another"))
    with pytest.raises(ModelLoadError, match="has no model another; it has served"):
        await engine.load(Path(), "vouched-digest")
    for status, body, sentence in (
        (401, b"", "API key"),
        (200, b"<html>", "list of models can't be read"),
        (200, {"data": 3}, "list of models can't be read"),
    ):
        server.listed = (status, body)
        with pytest.raises(ModelLoadError, match=sentence):
            await engine.load(Path(), "vouched-digest")
    server.listed = (404, b"")
    assert (await engine.load(Path(), "vouched-digest")).model_description == "another"
    await engine.close()
