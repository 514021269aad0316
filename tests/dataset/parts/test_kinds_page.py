"""The page about kinds of one's own: its example, as it is written."""

from __future__ import annotations

import re
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType

import pytest

from evalpool_dataset.loaders import Format, LoadedQuestions, LoadProblems, QuestionLoader
from evalpool_dataset.parts import Kind, installed_kinds
from evalpool_dataset.parts.kinds import ENTRY_POINT_GROUP

PAGE = Path(__file__).resolve().parents[3] / "docs" / "kinds.md"
MODULE = "my_datasets.statements"


@pytest.fixture
def code() -> str:
    (block,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return str(block)


@pytest.fixture
def kind(code: str, monkeypatch: pytest.MonkeyPatch) -> Kind:
    """The kind, as it is found once its distribution is installed."""
    module = ModuleType(MODULE)
    exec(compile(code, PAGE.name, "exec"), module.__dict__)
    monkeypatch.setitem(sys.modules, "my_datasets", ModuleType("my_datasets"))
    monkeypatch.setitem(sys.modules, MODULE, module)
    point = EntryPoint("statements", f"{MODULE}:STATEMENTS", ENTRY_POINT_GROUP)
    return installed_kinds([point])["statements"]


def loaded(kind: Kind, text: str) -> LoadedQuestions | LoadProblems:
    loader = kind.parts(kind.defaults).loader
    with QuestionLoader(Format.JSON_LINES, loader) as reading:
        reading.feed(text.encode())
        return reading.finish()


def test_the_example_has_fewer_than_40_lines(code: str) -> None:
    assert len(code.splitlines()) < 40


def test_its_rows_are_read_and_asked(kind: Kind) -> None:
    read = loaded(
        kind,
        '{"statement": "Snow is cold.", "truth": true}\n{"statement": "I fly.", "truth": false}\n',
    )
    assert isinstance(read, LoadedQuestions), read
    assert [question.answer for question in read.questions] == [1, 2]
    asked = kind.parts(kind.defaults).prompt.continuations(read.questions[1])
    assert asked.prompt == "I fly.\nTrue or false?"
    assert asked.texts == (" True", " False")
    assert len(kind.version(kind.defaults, read.questions)) == 64


@pytest.mark.parametrize(
    "row", ['{"statement": "x"}', '{"truth": true}', '{"statement": " ", "truth": true}']
)
def test_a_bad_row_is_told(kind: Kind, row: str) -> None:
    read = loaded(kind, row + "\n")
    assert isinstance(read, LoadProblems)
    assert read.told[0].line == 1
