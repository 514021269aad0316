"""The Python client's page: its session, block by block, as it is written."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "client.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.slow
async def test_the_session_of_the_clients_page_runs_as_it_is_written(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}

    for block in BLOCK.findall(PAGE.read_text()):
        code = compile(block, PAGE.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        # Code with `await` in it is a coroutine, as at the prompt of `python -m asyncio`.
        waits = eval(code, names)
        if inspect.iscoroutine(waits):
            await waits

    said = capsys.readouterr().out
    assert "INVALID_ARGUMENT INVALID_FIELD" in said
    assert "FUNDING_STATE_CREATED" in said
    assert "ENTRY_STATE_SCORED 12 12" in said
    assert said.rstrip().endswith("ENTRY_STATE_SCORED")
