"""What the engine `openai` asks of a server, and what it makes of the answers."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from evalpool_worker.engine.base import (
    ChatMessage,
    ChoiceQuestion,
    FinishReason,
    GenerationChunk,
    QuestionFailure,
    SamplingParameters,
    TemplatedChat,
)
from evalpool_worker.engine.errors import (
    InvalidParametersError,
)
from evalpool_worker.engine.openai import OpenAIEngine, OpenAISettings, openai_build
from evalpool_worker.engine.openai_request import Dialect
from tests.worker.engine.openai.calls import GREEDY, KEY, generate, tells
from tests.worker.engine.scripted_server import (
    MODEL,
    Asked,
    Connection,
    ScriptedServer,
    delta,
    piece,
    usage,
)


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
