"""`evalpool chat` against a real router: one question, piped lines, and at a terminal."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from evalpool.cli.output import errors
from evalpool.client.conversation import SYSTEM
from evalpool.models import find_model
from evalpool.wallet import Wallets
from tests.evalpool.background import Background
from tests.evalpool.cli.commands import Cli
from tests.evalpool.cli.terminal import CTRL_C, CTRL_D, at_a_terminal
from tests.router.router_harness import MODEL, RouterHarness, running_router
from tests.router.worker_double import WorkerDouble

GEMMA = find_model("gemma-3-270m-q4_k_m")


@pytest.fixture
def router(
    home: Path, tmp_path: Path, background: Background, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RouterHarness]:
    """A router that the commands find, and a wallet."""
    stack = AsyncExitStack()
    made: RouterHarness = background.do(
        stack.enter_async_context(running_router(tmp_path / "router", progress_seconds=0.02))
    )
    monkeypatch.setenv("EVALPOOL_ROUTER", made.service.endpoint)
    Wallets().new("default")
    yield made
    background.do(stack.aclose())


@pytest.fixture
def worker(router: RouterHarness, background: Background) -> WorkerDouble:
    double: WorkerDouble = background.do(router.worker())
    return double


def turns(worker: WorkerDouble, number: int) -> list[tuple[str, str]]:
    return [(m.role, m.content) for m in worker.prompted[number].chat.messages]


def test_one_question_is_answered_in_40_tokens(cli: Cli, worker: WorkerDouble) -> None:
    outcome = cli("chat", "Where?")
    assert (outcome.status, outcome.out, outcome.err) == (0, "Paris.\n", "")
    sampling = worker.prompted[0].sampling
    assert (sampling.max_tokens, sampling.HasField("temperature")) == (40, False)
    cli("chat", "Where?", "--max-tokens", "7", "--temperature", "0.5", "--seed", "3")
    sampling = worker.prompted[1].sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.seed) == (7, 0.5, 3)
    told = cli("chat", "Where?", "-o", "json").json
    assert set(told) == {"text", "complete"}
    assert told["text"] == "Paris."


def test_the_question_may_be_piped_whole(
    cli: Cli, worker: WorkerDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("Where\nis it?\n"))
    assert cli("chat", "-").out == "Paris.\n"
    assert turns(worker, 0)[-1] == ("user", "Where\nis it?\n")


def test_an_empty_question_is_refused_and_no_conversation(cli: Cli, worker: WorkerDouble) -> None:
    for question in ("", "x" * 65_537):
        failure = cli("chat", question).failure
        assert failure.startswith(f"question: it has {len(question)} bytes; give 1 to 65536")
        assert failure.endswith("[INVALID_FIELD]")


def test_what_is_no_text_is_one_line(
    cli: Cli, worker: WorkerDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    for arguments in (("chat",), ("chat", "-"), ("infer", "-")):
        broken = io.TextIOWrapper(io.BytesIO(b"\xff\xfe"), encoding="utf-8")
        monkeypatch.setattr("sys.stdin", broken)
        assert cli(*arguments).failure == "standard input is no text in utf-8; convert it"


def test_piped_lines_are_a_conversation(
    cli: Cli, worker: WorkerDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("Where?\n\n/new\n"))
    outcome = cli("chat", "--model", "gemma-3-270m-q4_k_m")
    assert (outcome.out, outcome.err) == ("Paris.\nParis.\n", "")
    # Commands are for people at a terminal; a program's line is a question.
    said = [("user", "Where?"), ("assistant", "Paris."), ("user", "/new")]
    assert turns(worker, 1) == [("system", SYSTEM), *said]
    assert worker.prompted[0].model.digest == GEMMA.sha256
    assert worker.prompted[0].sampling.max_tokens == 256

    monkeypatch.setattr("sys.stdin", io.StringIO("Where?\nWhen?\n"))
    lines = [json.loads(line) for line in cli("chat", "-o", "json").out.splitlines()]
    assert [line["question"] for line in lines] == ["Where?", "When?"]
    assert {line["text"] for line in lines} == {"Paris."}


def test_a_conversation_may_have_a_system_prompt_of_its_own(
    cli: Cli, worker: WorkerDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("Where?\n"))
    assert cli("chat", "--system", "Be brief.").status == 0
    assert turns(worker, 0) == [("system", "Be brief."), ("user", "Where?")]
    assert "--system is for a conversation" in cli("chat", "Where?", "--system", "x").failure
    assert "--hold pays for one question" in cli("chat", "--hold", "A" * 43).failure


def test_the_first_failure_ends_what_is_piped(
    cli: Cli, worker: WorkerDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.error = (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    monkeypatch.setattr("sys.stdin", io.StringIO("Where?\nWhen?\n"))
    assert cli("chat").failure.endswith("[INVALID_FIELD]")
    assert not worker.prompted


def test_what_no_longer_fits_leaves_the_conversation(
    cli: Cli, worker: WorkerDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    # SmolLM2 has a context of 8,192 tokens.
    long = "word " * 2000
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{long}\n{long}\n{long}\n"))
    outcome = cli("chat", "--model", MODEL)
    assert outcome.out == "Paris.\n" * 3
    assert outcome.err == "the oldest turn no longer fits the model's context, and left the " + (
        "conversation\n"
    )
    assert [len(request.chat.messages) for request in worker.prompted] == [2, 4, 4]


def test_a_conversation_that_a_worker_finds_too_long_is_asked_with_less_of_it(
    cli: Cli, worker: WorkerDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.longest_chat = 5
    monkeypatch.setattr("sys.stdin", io.StringIO("One?\nTwo?\nThree?\n"))
    outcome = cli("chat", "--model", MODEL)
    assert (outcome.status, outcome.out) == (0, "Paris.\n" * 3)
    assert "left the conversation" in outcome.err
    said = [("user", "Two?"), ("assistant", "Paris."), ("user", "Three?")]
    assert turns(worker, 2) == [("system", SYSTEM), *said]
    worker.longest_chat = 0
    monkeypatch.setattr("sys.stdin", io.StringIO("One?\n"))
    assert cli("chat", "--model", MODEL).failure.endswith("[CONTEXT_TOO_LONG]")


def test_a_question_says_what_it_waits_for(
    cli: Cli, router: RouterHarness, background: Background, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = threading.Event()
    prints = errors.print

    def printing(sentence: str, **style: Any) -> None:
        prints(sentence, **style)
        told.set()

    async def come() -> None:
        await asyncio.to_thread(told.wait)
        await router.worker()

    monkeypatch.setattr(errors, "print", printing)
    coming = background.begin(come())
    outcome = cli("chat", "Where?")
    coming.result()
    assert outcome.out == "Paris.\n"
    assert outcome.err.count("no worker of the herd takes work of the kind chat; start one") == 1


UP = "\x1b[A"


def test_a_conversation_at_a_terminal(worker: WorkerDouble, tmp_path: Path) -> None:
    history = tmp_path / "typed"
    with at_a_terminal("chat", "--history", str(history)) as terminal:
        terminal.until("SmolLM2-135M-Instruct.Q4_1 answers")
        terminal.line("Where?")
        terminal.until("Paris.")
        terminal.until("2 tokens, 7 prompt tokens")
        terminal.line(UP)
        terminal.until("2 tokens")
        said = [("user", "Where?"), ("assistant", "Paris."), ("user", "Where?")]
        assert turns(worker, 1) == [("system", SYSTEM), *said]
        terminal.line("/system Be brief.")
        terminal.until("a new conversation")
        terminal.line("/model gemma-3-270m-q4_k_m")
        terminal.until("gemma-3-270m-q4_k_m answers")
        terminal.line("When?")
        terminal.until("2 tokens")
        assert turns(worker, 2) == [("system", "Be brief."), ("user", "When?")]
        assert worker.prompted[2].model.digest == GEMMA.sha256
        terminal.line("/model nobody's")
        terminal.until("[MODEL_NOT_FOUND]")
        terminal.line("/sources")
        terminal.until("the last answer was based on none")
        terminal.line("/nothing")
        terminal.until("there is no /nothing; /help tells what there is")
        terminal.line("/help")
        help_text = terminal.until("ends")
        for command in ("/new", "/system", "/model", "/documents", "/sources", "ctrl-C"):
            assert command in help_text
        terminal.until("> ")
        terminal.type(CTRL_D)
        assert terminal.end() == 0
    assert history.read_text().splitlines()[-1] == "/help"


def test_an_answer_is_stopped_and_the_conversation_goes_on(
    worker: WorkerDouble, background: Background
) -> None:
    worker.open.clear()
    worker.free = 1
    with at_a_terminal("chat") as terminal:
        terminal.line("Where?")
        terminal.until("Par")
        terminal.type(CTRL_C)
        terminal.until("stopped")

        async def cancelled() -> None:
            await worker.cancelled.wait()
            worker.open.set()

        background.do(cancelled())
        terminal.until("> ")
        terminal.type("half a question")
        # It is read by then: ctrl-C would take it away from whoever reads.
        terminal.until("half a question")
        terminal.interrupt("ctrl-D ends")
        terminal.line("When?")
        terminal.until("2 tokens")
        # What came of the answer was said.
        said = [("user", "Where?"), ("assistant", "Par"), ("user", "When?")]
        assert turns(worker, 1) == [("system", SYSTEM), *said]
        terminal.until("> ")
        terminal.type(CTRL_D)
        assert terminal.end() == 0


def test_a_question_that_fails_is_not_the_conversations_end(worker: WorkerDouble) -> None:
    worker.error = (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    with at_a_terminal("chat") as terminal:
        terminal.line("Where?")
        terminal.until("[INVALID_FIELD]")
        worker.error = None
        terminal.line("When?")
        terminal.until("Paris.")
        assert turns(worker, 0) == [("system", SYSTEM), ("user", "When?")]


def test_without_a_herd_a_conversation_does_not_begin(home: Path) -> None:
    with at_a_terminal("chat") as terminal:
        terminal.until("a service cannot be reached")
        assert terminal.end() == 1


def test_a_model_cannot_command_the_terminal(worker: WorkerDouble) -> None:
    worker.answers = ["\x1b[2J", "done"]
    with at_a_terminal("chat", "Where?") as terminal:
        assert "�[2Jdone" in terminal.until("done")
