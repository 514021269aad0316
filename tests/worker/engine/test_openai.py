"""The engine `openai` against a server that does as it is told, most of it wrong."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from evalpool_worker.engine.base import (
    UNKNOWN_TOKEN,
    ChatMessage,
    ChoiceQuestion,
    FinishReason,
    GenerationChunk,
    GenerationEnd,
    Prompt,
    QuestionFailure,
    SamplingParameters,
    TemplatedChat,
)
from evalpool_worker.engine.errors import (
    EngineBusyError,
    EngineError,
    InvalidParametersError,
    ModelLoadError,
    PromptTooLongError,
)
from evalpool_worker.engine.openai import OpenAIEngine, OpenAISettings, openai_build
from evalpool_worker.engine.openai_request import Dialect
from tests.worker.engine.scripted_server import (
    MODEL,
    Asked,
    Connection,
    ScriptedServer,
    delta,
    piece,
    scripted_server,
    usage,
)

GREEDY = SamplingParameters(max_tokens=24, temperature=0.0)
KEY = "sk-very-secret"


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


async def test_a_text_is_joined_and_counted_as_the_server_counts(
    server: ScriptedServer, engine: OpenAIEngine
) -> None:
    tells(server, piece("Once"), piece(" upon"), piece("", "length"), usage(7, 5), "[DONE]")
    text, end = await generate(engine)
    assert text == "Once upon"
    assert end.finish_reason is FinishReason.LENGTH
    assert (end.prompt_tokens, end.completion_tokens) == (7, 5)
    assert (engine.load_now.prompt_tokens, engine.load_now.completion_tokens) == (7, 5)


async def test_without_usage_events_are_counted(
    server: ScriptedServer, engine: OpenAIEngine
) -> None:
    tells(server, piece("Once"), piece(" upon", "stop"), "[DONE]")
    _, end = await generate(engine)
    assert (end.prompt_tokens, end.completion_tokens) == (0, 2)


async def test_messages_go_to_chat_completions_and_texts_to_completions(
    server: ScriptedServer, engine: OpenAIEngine
) -> None:
    tells(server, delta(None), delta("Hi", None), delta(None, "stop"), "[DONE]")
    assert (await generate(engine, (ChatMessage("user", "Hello"),)))[0] == "Hi"
    chat = server.asked[-1]
    assert chat.path == "/v1/chat/completions"
    assert chat.body["messages"] == [{"role": "user", "content": "Hello"}]

    tells(server, piece("Hi", "stop"), "[DONE]")
    await generate(engine, "Hello")
    assert server.asked[-1].path == "/v1/completions"
    assert server.asked[-1].body["prompt"] == "Hello"


async def test_a_given_template_is_rendered_here(
    server: ScriptedServer, engine: OpenAIEngine
) -> None:
    tells(server, piece("Hi", "stop"), "[DONE]")
    template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    await generate(engine, TemplatedChat((ChatMessage("user", "Hello"),), template))
    assert server.asked[-1].body["prompt"] == "<user>Hello"


async def test_openais_own_parameters_are_mapped(
    server: ScriptedServer, engine: OpenAIEngine
) -> None:
    tells(server, piece("Hi", "stop"), "[DONE]")
    parameters = SamplingParameters(
        max_tokens=5,
        temperature=0.5,
        top_k=0,
        top_p=0.75,
        min_p=0.0,
        frequency_penalty=0.25,
        presence_penalty=-0.5,
        seed=11,
        stop=("a", "b", "c", "d", "e"),
    )
    await generate(engine, "Hello", parameters)
    assert server.asked[-1].body == {
        "model": MODEL,
        "prompt": "Hello",
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 5,
        "temperature": 0.5,
        "top_p": 0.75,
        "seed": 11,
        "frequency_penalty": 0.25,
        "presence_penalty": -0.5,
        "stop": ["a", "b", "c", "d"],
    }
    assert server.asked[-1].headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("dialect", "expected"),
    [
        ("vllm", {"top_k": 3, "min_p": 0.5}),
        (
            "llama_cpp",
            {"top_k": 3, "min_p": 0.5, "repeat_penalty": 1.0, "repeat_last_n": 64},
        ),
    ],
)
async def test_a_dialects_parameters_are_mapped(
    server: ScriptedServer, settings: OpenAISettings, dialect: Dialect, expected: dict[str, object]
) -> None:
    tells(server, piece("Hi", "stop"), "[DONE]")
    engine = OpenAIEngine(replace(settings, dialect=dialect))
    await engine.load(Path(), "vouched-digest")
    await generate(engine, "Hello", replace(GREEDY, temperature=1.0, top_k=3, min_p=0.5))
    body = server.asked[-1].body
    assert {name: body[name] for name in expected} == expected
    assert "grammar" not in body
    await engine.close()


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        (replace(GREEDY, temperature=1.0, min_p=0.0), "top_k"),
        (replace(GREEDY, temperature=1.0, top_k=0), "min_p"),
        (replace(GREEDY, repeat_penalty=1.1), "repeat_penalty"),
        (replace(GREEDY, grammar='root ::= "yes"'), "grammar"),
        (replace(GREEDY, logprobs=0), "logprobs"),
    ],
)
async def test_what_the_server_does_not_know_is_refused_by_name(
    server: ScriptedServer, engine: OpenAIEngine, parameters: SamplingParameters, field: str
) -> None:
    before = len(server.asked)
    with pytest.raises(InvalidParametersError, match=f"^{field} ") as refused:
        await generate(engine, "Hello", parameters)
    assert refused.value.field == field
    assert len(server.asked) == before


async def test_a_grammar_without_a_root_does_not_reach_a_server_that_it_may_bring_down(
    server: ScriptedServer, settings: OpenAISettings
) -> None:
    engine = OpenAIEngine(replace(settings, dialect="llama_cpp"))
    await engine.load(Path(), "vouched-digest")
    tells(server, piece("yes", "stop"), "[DONE]")
    with pytest.raises(InvalidParametersError, match="grammar must have a rule named root"):
        await generate(engine, "Hello", replace(GREEDY, grammar='answer ::= "yes"'))
    await generate(engine, "Hello", replace(GREEDY, grammar='root ::= "yes"'))
    assert server.asked[-1].body["grammar"] == 'root ::= "yes"'
    await engine.close()


async def test_a_grammar_goes_to_vllm_as_a_structured_output(
    server: ScriptedServer, settings: OpenAISettings
) -> None:
    engine = OpenAIEngine(replace(settings, dialect="vllm"))
    await engine.load(Path(), "vouched-digest")
    tells(server, piece("yes", "stop"), "[DONE]")
    await generate(engine, "Hello", GREEDY)
    assert "structured_outputs" not in server.asked[-1].body
    await generate(engine, "Hello", replace(GREEDY, grammar='root ::= "yes"'))
    assert server.asked[-1].body["structured_outputs"] == {"grammar": 'root ::= "yes"'}
    await engine.close()


async def test_stop_texts_beyond_the_servers_end_the_text_and_the_request(
    server: ScriptedServer, engine: OpenAIEngine
) -> None:
    closed = asyncio.Event()

    async def answer(_: Asked, connection: Connection) -> None:
        await connection.stream(piece("one tw"), piece("o three"))
        await connection.closed()
        closed.set()

    server.answer = answer
    parameters = replace(GREEDY, stop=("\0a", "\0b", "\0c", "\0d", "two"))
    text, end = await generate(engine, "Hello", parameters)
    assert text == "one "
    assert end.finish_reason is FinishReason.STOP
    await closed.wait()


async def test_a_character_in_two_events_comes_whole(
    server: ScriptedServer, engine: OpenAIEngine
) -> None:
    tells(server, r'{"choices": [{"text": "a\ud83d"}]}', r'{"choices": [{"text": "\ude42b"}]}')
    chunks: list[str] = []
    async for event in engine.generate("Hello", GREEDY):
        if isinstance(event, GenerationChunk):
            chunks.append(event.text)
    assert chunks == ["a", "🙂b"]


async def test_events_may_be_cut_anywhere_and_hold_any_line_separator(
    server: ScriptedServer, engine: OpenAIEngine
) -> None:
    event = 'data: {"choices": [{"text": "é\u2028🙂"}]}\r\n\r\n'

    async def answer(_: Asked, connection: Connection) -> None:
        await connection.stream()
        for byte in (b": a comment\r\n" + event.encode()) * 2:
            await connection.raw(bytes([byte]))
        await connection.event(piece("", "stop"))

    server.answer = answer
    text, end = await generate(engine)
    assert text == "é\u2028🙂" * 2
    assert end.finish_reason is FinishReason.STOP


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


async def test_closing_a_stream_closes_the_request(
    server: ScriptedServer, engine: OpenAIEngine
) -> None:
    closed = asyncio.Event()

    async def answer(_: Asked, connection: Connection) -> None:
        await connection.stream(piece("Once"))
        await connection.closed()
        closed.set()

    server.answer = answer
    async with aclosing(engine.generate("Hello", GREEDY)) as stream:  # type: ignore[type-var]
        await anext(stream)
        assert engine.load_now.streams_running == 1
    await closed.wait()
    await engine.wait_idle()


async def test_a_cancelled_task_closes_a_request_that_nobody_has_answered(
    server: ScriptedServer, engine: OpenAIEngine
) -> None:
    came, closed = asyncio.Event(), asyncio.Event()

    async def answer(_: Asked, connection: Connection) -> None:
        came.set()
        await connection.closed()
        closed.set()

    server.answer = answer
    task = asyncio.create_task(generate(engine))
    await came.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await closed.wait()
    await engine.wait_idle()


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


async def test_its_results_name_the_build_that_is_known_beforehand(
    engine: OpenAIEngine, settings: OpenAISettings
) -> None:
    assert engine.info is not None
    assert engine.info.engine_build == openai_build(settings)
    assert engine.info.vouched
    assert settings.url not in engine.info.engine_build


async def test_nothing_is_scored_and_others_may_try(engine: OpenAIEngine) -> None:
    [outcome] = [each async for each in engine.score((ChoiceQuestion("q", "Is it?", (" yes",)),))]
    assert isinstance(outcome, QuestionFailure)
    assert outcome.retriable


async def test_the_key_is_never_shown(
    server: ScriptedServer,
    engine: OpenAIEngine,
    settings: OpenAISettings,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    tells(server, piece("Hi", "stop"), "[DONE]")
    await generate(engine)
    assert KEY not in repr(settings)
    assert KEY not in caplog.text
