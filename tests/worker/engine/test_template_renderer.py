"""Chat templates run in a process of their own, which they can't leave and can't exhaust."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from llama_cpp.llama_chat_format import Jinja2ChatFormatter

from evalpool_worker.engine import template_renderer
from evalpool_worker.engine.base import ChatMessage
from evalpool_worker.engine.errors import EngineError, InvalidParametersError, NoModelLoadedError
from evalpool_worker.engine.model import LoadedModel
from evalpool_worker.engine.template_process import LENGTH, Setup
from evalpool_worker.engine.template_renderer import RenderLimits, TemplateRenderer
from evalpool_worker.engine.tokenisation import Tokeniser

MESSAGES = (ChatMessage("system", "Be brief."), ChatMessage("user", "Grüße! 東京 🙂 <b>"))
GOOD = "{% for m in messages %}[{{ m.role }}]{{ m['content'] }}{% endfor %}"
GOOD_TEXT = "[system]Be brief.[user]Grüße! 東京 🙂 <b>"
ENDLESS = "{% for i in range(99999) %}" * 3 + "{% endfor %}" * 3
# Bad for one conversation and good for all others.
MOODY = "{% if messages|length == 1 %}{BAD}{% else %}" + GOOD + "{% endif %}"
BAD_MESSAGES = MESSAGES[:1]

# Long enough for every good template, however busy the machine is.
LIMITS = RenderLimits(
    processor_seconds=0.5, wall_seconds=600, memory_bytes=128 * 2**20, output_bytes=10_000
)
PATIENT = RenderLimits(processor_seconds=3600, wall_seconds=3600)


class Recorded(subprocess.Popen[bytes]):
    """A process that the tests can find again."""

    made: list[Recorded]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.made.append(self)


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> list[Recorded]:
    """The processes that were started so far."""
    Recorded.made = []
    monkeypatch.setattr(subprocess, "Popen", Recorded)
    return Recorded.made


@pytest.fixture
async def make(processes: list[Recorded]) -> Any:
    """Makes renderers, which end with the test."""
    made: list[TemplateRenderer] = []

    def renderer(template: str, limits: RenderLimits = LIMITS) -> TemplateRenderer:
        made.append(TemplateRenderer(template, "<s>", "</s>", limits))
        return made[-1]

    yield renderer
    for each in made:
        await each.close()
    assert all(process.returncode is not None for process in processes)


async def test_one_process_renders_all_of_a_models_conversations(
    make: Any, processes: list[Recorded]
) -> None:
    renderer = make(GOOD)
    assert not processes
    assert await renderer.render(MESSAGES) == GOOD_TEXT
    assert await renderer.render(MESSAGES[1:]) == GOOD_TEXT.removeprefix("[system]Be brief.")
    assert len(processes) == 1


async def test_conversations_that_come_together_get_their_own_texts(make: Any) -> None:
    renderer = make(GOOD)
    texts = await asyncio.gather(
        *(renderer.render([ChatMessage("user", str(number))]) for number in range(20))
    )
    assert texts == [f"[user]{number}" for number in range(20)]


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ bos_token }}|{{ eos_token }}|{{ add_generation_prompt }}", "<s>|</s>|True"),
        ("{{ tools }}{{ documents }}{{ functions }}{{ tool_choice }}", "None" * 4),
        ("{{ unheard_of }}{% if enable_thinking %}x{% endif %}", ""),
        ("{{ {'b': '<é>', 'a': 1} | tojson }}", '{"b": "<é>", "a": 1}'),
        ("{{ {'b': 1, 'a': 2} | tojson(indent=1) }}", '{\n "b": 1,\n "a": 2\n}'),
        ("{% for i in [1, 2, 3] %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "1"),
        ("a\n    {% if true %}\nb\n    {% endif %}\nc", "a\nb\nc"),
        ("{% generation %}said{% endgeneration %}", "said"),
        ("{{ 'a\\tb' }}{{ '\\u00e9' }}", "a\tbé"),
        ("{{ messages[0].content | trim | upper }}", "BE BRIEF."),
        ("{{ '<p>x &amp; y</p>' | striptags }}", "x & y"),
        ("{{ 'one two' | wordwrap(3) }}", "one\ntwo"),
        ("{{ [1] | pprint }}{{ lipsum(n=1, html=false) | length > 9 }}", "[1]True"),
    ],
)
async def test_templates_find_what_transformers_offers_them(
    make: Any, template: str, text: str
) -> None:
    assert await make(template).render(MESSAGES) == text


async def test_the_date_is_the_local_one(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    renderer = make("{{ strftime_now('%Y-%m-%d') }} {{ strftime_now('%d %b') | length }}")
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    here = await renderer.render(MESSAGES)
    other = make("{{ strftime_now('%Y-%m-%d') }} {{ strftime_now('%d %b') | length }}")
    monkeypatch.setenv("TZ", "Etc/GMT+12")
    # 26 hours apart: another day always.
    assert await other.render(MESSAGES) < here


async def test_smollm2s_own_template_gives_what_llama_cpp_python_gives(
    make: Any, smollm2_path: Path
) -> None:
    model = LoadedModel(smollm2_path)
    tokeniser = Tokeniser(model)
    template = model.chat_template
    assert template is not None
    model.free()
    renderer = TemplateRenderer(template, tokeniser.bos_text, tokeniser.eos_text, LIMITS)
    formatter = Jinja2ChatFormatter(
        template=template, bos_token=tokeniser.bos_text, eos_token=tokeniser.eos_text
    )
    for messages in (MESSAGES, MESSAGES[1:], (*MESSAGES, ChatMessage("assistant", "Hm."))):
        rows: Any = [{"role": each.role, "content": each.content} for each in messages]
        assert await renderer.render(messages) == formatter(messages=rows).prompt
    assert await renderer.render(MESSAGES) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nGrüße! 東京 🙂 <b><|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    await renderer.close()


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (ENDLESS, r"take the model's chat template more than 0\.5 s to render"),
        (
            "{{ (messages | length + 6) ** (9 ** 9) }}",
            r"take the model's chat template more than 0\.5 s to render",
        ),
        ("{{ 'x' * 10 ** 9 }}", "take the model's chat template more than 128 MiB of memory"),
        (
            "{% set n = namespace(x='xxxxxxxx') %}"
            "{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
            "take the model's chat template more than 128 MiB of memory",
        ),
        ("{{ 'x' * 10001 }}", "the text is longer than 10000 bytes"),
        ("{% for i in range(99999) %}xx{% endfor %}", "the text is longer than 10000 bytes"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
        ("{{ raise_exception('Only the user may speak.') }}", r": Only the user may speak\.$"),
        ("{{ raise_exception('x' * 100000) }}", r": x{500}\.$"),
        ("{{ messages[7].content }}", "has no element 7"),
        ("{{ '\\ud800' }}", "surrogates not allowed"),
    ],
)
async def test_a_template_that_fails_fails_one_conversation_and_no_other(
    make: Any, bad: str, why: str
) -> None:
    renderer, other = make(MOODY.replace("{BAD}", bad)), make(GOOD)
    assert await renderer.render(MESSAGES) == GOOD_TEXT
    with pytest.raises(InvalidParametersError, match=why) as refused:
        await renderer.render(BAD_MESSAGES)
    assert refused.value.field == "messages"
    assert str(refused.value).startswith("messages ")
    assert await renderer.render(MESSAGES) == GOOD_TEXT
    assert await other.render(MESSAGES) == GOOD_TEXT


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ raise_exception.__globals__.os }}",
        "{{ strftime_now.__code__.co_consts }}",
        "{{ self._TemplateReference__context.environment.filters.clear() }}",
        "{{ '{0.__class__.__mro__}'.format('') }}",
        "{{ messages.append(1) }}",
        "{% include '/etc/passwd' %}",
    ],
)
async def test_a_template_cant_reach_pythons_insides(make: Any, template: str) -> None:
    with pytest.raises(InvalidParametersError, match="don't suit the model's chat template"):
        await make(template).render(MESSAGES)


async def test_what_leaves_the_sandbox_finds_nothing_to_open(make: Any) -> None:
    # As if a way out of Jinja's sandbox were known.
    code = (
        "import os; from evalpool_worker.engine import template_process as p; "
        "p.confine(2**28); print(sorted(os.environ)); os.open('/dev/null', os.O_RDONLY)"
    )
    ended = await asyncio.to_thread(
        subprocess.run,
        [*template_renderer._COMMAND[:2], "-c", code],
        env={},
        capture_output=True,
        text=True,
    )
    assert "Too many open files" in ended.stderr


async def test_the_process_has_none_of_the_workers_secrets(
    make: Any, processes: list[Recorded], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    await make(GOOD).render(MESSAGES)
    environment = Path(f"/proc/{processes[0].pid}/environ").read_bytes()
    assert b"secret" not in environment
    files = [each.readlink() for each in Path(f"/proc/{processes[0].pid}/fd").iterdir()]
    assert sum(file.name.startswith("socket:") for file in files) == 1


async def test_an_endless_template_holds_up_nobody_and_can_be_cancelled(
    make: Any, processes: list[Recorded]
) -> None:
    endless, good = make(MOODY.replace("{BAD}", ENDLESS), PATIENT), make(GOOD)
    rendering = asyncio.create_task(endless.render(BAD_MESSAGES))
    assert await good.render(MESSAGES) == GOOD_TEXT
    assert not rendering.done()
    waiting = asyncio.create_task(endless.render(MESSAGES))
    await asyncio.sleep(0)
    rendering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await rendering
    # What waited for its turn gets a new process.
    assert await waiting == GOOD_TEXT
    ended = [process.returncode for process in processes if process.returncode is not None]
    assert ended == [-signal.SIGKILL]
    assert len(processes) == 3


async def test_closing_ends_what_is_rendered_and_what_waits(
    make: Any, processes: list[Recorded]
) -> None:
    renderer = make(MOODY.replace("{BAD}", ENDLESS), PATIENT)
    assert await renderer.render(MESSAGES) == GOOD_TEXT
    tasks = [asyncio.create_task(renderer.render(BAD_MESSAGES)) for _ in range(2)]
    await asyncio.sleep(0)
    await renderer.close()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(outcome, NoModelLoadedError)
    assert [process.returncode for process in processes] == [-signal.SIGKILL]
    with pytest.raises(NoModelLoadedError):
        await renderer.render(MESSAGES)
    await renderer.close()


async def test_a_process_that_somebody_ends_is_no_fault_of_the_template(
    make: Any, processes: list[Recorded]
) -> None:
    renderer = make(GOOD)
    await renderer.render(MESSAGES)
    processes[0].kill()
    with pytest.raises(EngineError, match="ended with status -9") as failed:
        await renderer.render(MESSAGES)
    assert not isinstance(failed.value, InvalidParametersError)
    assert await renderer.render(MESSAGES) == GOOD_TEXT


async def test_a_template_that_brings_the_process_down_is_told(
    make: Any, processes: list[Recorded]
) -> None:
    renderer = make(MOODY.replace("{BAD}", ENDLESS), PATIENT)
    await renderer.render(MESSAGES)
    rendering = asyncio.create_task(renderer.render(BAD_MESSAGES))
    await asyncio.sleep(0)
    processes[0].send_signal(signal.SIGSEGV)
    with pytest.raises(InvalidParametersError, match="bring the model's chat template down"):
        await rendering


async def test_a_machine_that_is_too_slow_is_no_fault_of_the_template(make: Any) -> None:
    renderer = make(ENDLESS, RenderLimits(processor_seconds=3600, wall_seconds=0.05))
    with pytest.raises(EngineError, match=r"not rendered within 0\.05 s") as failed:
        await renderer.render(MESSAGES)
    assert not isinstance(failed.value, InvalidParametersError)


async def test_a_process_that_cant_be_started_is_told(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(template_renderer, "_COMMAND", ("/nowhere/python",))
    renderer = make(GOOD)
    with pytest.raises(EngineError, match=r"can't be started: .*No such file"):
        await renderer.render(MESSAGES)
    monkeypatch.undo()
    assert await renderer.render(MESSAGES) == GOOD_TEXT


async def test_the_process_ends_with_the_worker() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = subprocess.Popen(  # noqa: ASYNC220
            template_renderer._COMMAND, stdin=theirs.fileno()
        )
        setup = Setup(GOOD, "", "", 1.0, 2**28, 100).encode()
        ours.sendall(LENGTH.pack(len(setup)) + setup)
    # What a killed worker leaves is a closed socket.
    assert await asyncio.to_thread(process.wait) == 0
