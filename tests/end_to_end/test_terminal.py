"""Commands at a terminal: progress bars on standard error, results on standard output."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from tests.end_to_end.conftest import SMOLLM2
from tests.evalpool.cli import terminal
from tests.evalpool.cli.commands import Cli

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def at_a_terminal(*arguments: str) -> tuple[str, str]:
    """Run a command whose standard error is a terminal; gives its output and what that shows."""
    ours, terminal = pty.openpty()
    command = [sys.executable, "-m", "evalpool", *arguments]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=terminal,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
        text=True,
    )
    os.close(terminal)
    shown = b""
    with os.fdopen(ours, "rb", buffering=0) as screen:
        try:
            while piece := screen.read(4096):
                shown += piece
        except OSError:
            # How a terminal without a process ends.
            pass
    out, _ = process.communicate()
    assert process.returncode == 0, shown
    return out, shown.decode()


def test_loads_uploads_and_evaluations_show_how_far_they_are(
    cli: Cli, questions: Path, tmp_path: Path
) -> None:
    cli("wallet", "new", "owner")
    name = f"terminal-{uuid4().hex[:8]}"
    cli("dataset", "create", name, "-w", "owner")

    out, shown = at_a_terminal("dataset", "load", name, str(questions), "-w", "owner")
    assert out.startswith("loaded: 12 questions")
    assert f"loading {questions.name}" in shown
    assert "━" in shown
    out, shown = at_a_terminal("dataset", "evaluate", name, SMOLLM2, "--wait", "-w", "owner")
    assert "complete" in out
    assert "12/12" in shown
    run = out.split()[1]
    results = tmp_path / "results.parquet"
    out, shown = at_a_terminal("dataset", "results", run, "--file", str(results), "-w", "owner")
    assert json.loads(out)["results"] == 12
    assert "writing results.parquet" in shown
    assert "12/12" in shown
    model = tmp_path / "small.gguf"
    cli("model", "quantise", SMOLLM2, "Q2_K", str(model))
    out, shown = at_a_terminal("model", "push", str(model), "-w", "owner")
    assert len(out.strip()) == 64
    assert f"sending {model.name}" in shown


def test_programs_see_no_bars(cli: Cli, questions: Path) -> None:
    cli("wallet", "new", "owner")
    name = f"terminal-{uuid4().hex[:8]}"
    cli("dataset", "create", name, "-w", "owner")
    _, shown = at_a_terminal("dataset", "load", name, str(questions), "-w", "owner", "-o", "json")
    assert shown == ""


def test_a_conversation_is_based_on_documents_which_are_shown(cli: Cli, tmp_path: Path) -> None:
    cli("wallet", "new", "reader")
    file = tmp_path / "documents.jsonl"
    long = "A cat sits on the mat in the kitchen, " + "beside the door to the garden, " * 4
    file.write_text(
        "".join(
            json.dumps({"content": content, "meta": {"page": page}}) + "\n"
            for page, content in (("one", long), ("two", "The stock market fell."))
        )
    )
    name = f"terminal-{uuid4().hex[:8]}"
    assert cli("documents", "create", name, str(file), "-w", "reader").status == 0
    with terminal.at_a_terminal("chat", "-w", "reader", "--top-k", "1") as screen:
        screen.line("/documents nothing")
        screen.until("[DOCUMENT_SET_NOT_FOUND]")
        screen.line(f"/documents {name}")
        screen.until(f"answers are based on {name}, 2 documents")
        screen.line("Where is the cat?")
        used = screen.until("tokens/s")
        assert "A cat sits on the mat in the kitchen" in used
        assert "…" in used
        assert long not in used
        assert "stock market" not in used
        screen.line("/sources")
        screen.until("page=one")
        assert long in screen.until("> ").replace("\r\n", "\n")
        screen.type("/documents\r")
        screen.until("answers are based on no documents")
        screen.line("Hello")
        assert "A cat sits" not in screen.until("tokens/s")
        screen.until("> ")
        screen.type(terminal.CTRL_D)
        assert screen.end() == 0
