"""A task written out in a process of its own, and task files that would hang or fill it."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from evalpool.tasks import (
    BadRow,
    Order,
    TaskError,
    Written,
    row_of,
    task_of,
    task_prompts,
    write_out,
)
from tests.evalpool.tasks.lm_eval_files import SYSTEM_PROMPT, WRITTEN, rows, task_file


def order_of(name: str, folder: Path, **options: Any) -> Order:
    """A task of the harness with its rows in files."""
    data = {}
    for split, given in rows(name).items():
        path = folder / f"{split}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in given))
        data[split] = [str(path)]
    return Order(str(task_file(name)), data, **options)


def made(order: Order) -> tuple[Written, list[dict[str, Any]]]:
    file = io.BytesIO()
    written = write_out(order, file)
    return written, [json.loads(line) for line in file.getvalue().splitlines()]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("social_iqa", "continuation"), ("winogrande", "ending"), ("hellaswag", "continuation")],
)
def test_rows_are_those_of_the_prompts(tmp_path: Path, name: str, kind: str) -> None:
    order = order_of(name, tmp_path, shots=2)
    written, given = made(order)
    assert written == Written(kind, "", len(given), (), 0)
    assert given == [row_of(prompt) for prompt in task_prompts(task_of(order), rows(name))]


def test_a_task_that_is_answered_freely_is_written_out(tmp_path: Path) -> None:
    told = []
    file = io.BytesIO()
    order = order_of("triviaqa", tmp_path)
    written = write_out(order, file, lambda done, total: told.append((done, total)))
    assert (written.kind, written.count) == ("generation", 3)
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert [json.loads(line) for line in file.getvalue().splitlines()] == [
        {"prompt": each["plain"], "expected": each["expected"]} for each in WRITTEN["triviaqa/0"]
    ]


def test_a_conversation_has_one_system_prompt(tmp_path: Path) -> None:
    order = order_of("nq_open", tmp_path, chat=True, system_prompt=SYSTEM_PROMPT)
    written, given = made(order)
    conversations = [each["chat_system"] for each in WRITTEN["nq_open/0"]]
    assert written.system_prompt == conversations[0][0]["content"]
    assert [row["prompt"] for row in given] == [each[1]["content"] for each in conversations]


TASK: dict[str, Any] = {
    "task": "mine",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "rows.jsonl"}},
    "test_split": "test",
    "doc_to_text": "{{q}}",
    "doc_to_target": "a",
}


def mine(folder: Path, given: list[dict[str, Any]] | None = None, **changes: Any) -> Order:
    """A task of one's own; in row 2 `q` is 2."""
    given = given or [{"q": "one", "n": 1, "a": "x"}, {"q": "two", "n": 2, "a": "y"}]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in given))
    file = folder / "task.yaml"
    file.write_text(yaml.safe_dump(TASK | changes))
    return Order(str(file), row_seconds=0.5, memory_bytes=64 << 20)


IN_ROW_2 = "{% if n == 2 %}"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}",
            r"its templates take more than 0\.5 s",
        ),
        ("{{ (q * 20)|regex_replace('([two]+)+x', '') }}", r"its templates take more than 0\.5 s"),
        ("{{ 'x' * 999999999 }}", "its templates take more than 64 MiB of memory"),
        ("{{ (n + 7) ** (9 ** 9) }}", r"its templates take more than 0\.5 s"),
        ("{{ ''.__class__ }}", "doc_to_text: the template reaches for what it may not"),
        ("{{ q.nothing }}", "doc_to_text: the template fails"),
        ("{{ n / 0 }}", "doc_to_text: the template fails: division by zero"),
        ("{{ lipsum(99999) }}", r"its templates take more than (0\.5 s|64 MiB of memory)"),
    ],
)
def test_a_row_whose_template_takes_too_much_is_named(
    tmp_path: Path, template: str, message: str
) -> None:
    order = mine(tmp_path, doc_to_text=f"{{{{q}}}}{IN_ROW_2}{template}{{% endif %}}")
    with pytest.raises(TaskError, match=f"test, row 2: {message}"):
        made(order)


def test_the_process_can_open_nothing_and_has_little_memory() -> None:
    program = """
import errno, os
from evalpool.tasks.writing_process import confine
confine(64 << 20)
try:
    os.open("/", os.O_RDONLY)
except OSError as error:
    print(error.errno == errno.EMFILE)
try:
    bytearray(65 << 20)
except MemoryError:
    print(True)
"""
    run = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout == "True\nTrue\n", run.stderr


def test_what_jinja_imports_late_is_there(tmp_path: Path) -> None:
    order = mine(tmp_path, doc_to_text="{{q|wordwrap(3)}}{{[q]|pprint}}{{lipsum(1)[:0]}}")
    assert [row["prompt"] for row in made(order)[1]] == ["one['one']", "two['two']"]


def test_rows_that_a_service_would_refuse_are_told_and_not_written(tmp_path: Path) -> None:
    given: list[dict[str, Any]] = [
        {"q": "good", "a": "x"},
        {"q": " ", "a": ""},
        {"q": "\ud800", "a": "a\0b"},
        {"q": "x" * (1 << 20), "a": "x"},
        {"q": "many", "a": ["x"] * 1001},
        {"q": "é", "a": ["x", " "]},
    ]
    written, kept = made(mine(tmp_path, given))
    assert [row["prompt"] for row in kept] == ["good"]
    assert (written.count, written.bad_count) == (6, 7)
    assert written.bad == (
        BadRow(2, "prompt", "it is empty"),
        BadRow(2, "expected", "it is empty"),
        BadRow(3, "prompt", "it has half of a surrogate pair"),
        BadRow(3, "expected", "it has a NUL character"),
        BadRow(4, "", "it is longer than 1 MiB"),
        BadRow(5, "expected", "it has 1001 entries; there are to be 1 to 1000"),
        BadRow(6, "expected[1]", "it is empty"),
    )


def test_of_many_bad_rows_the_first_hundred_are_told(tmp_path: Path) -> None:
    written, _ = made(mine(tmp_path, [{"q": "", "a": "x"}] * 150))
    assert (len(written.bad), written.bad_count) == (100, 150)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"doc_to_text": None}, "doc_to_text: it is missing"),
        ({"test_split": "dev"}, "dev: there are no rows of this split"),
        ({"dataset_path": "csv", "dataset_kwargs": None}, "dataset_path: csv is no local file"),
        ({"process_docs": "x"}, "process_docs: it is no function"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(TaskError, match=message):
        made(mine(tmp_path, **changes))


def test_a_split_without_rows_is_refused(tmp_path: Path) -> None:
    order = mine(tmp_path)
    (tmp_path / "rows.jsonl").write_text("")
    with pytest.raises(TaskError, match="test: there are no rows in this split"):
        made(order)


def test_questions_of_two_kinds_are_no_dataset(tmp_path: Path) -> None:
    order = mine(
        tmp_path,
        [{"q": "one", "a": "x"}, {"q": "0", "a": "x"}],
        output_type="multiple_choice",
        doc_to_choice=["x", "y"],
        doc_to_text="{{q}}",
    )
    with pytest.raises(TaskError, match="test, row 2: doc_to_text: it is of the kind ending"):
        made(order)


def test_a_description_that_differs_is_no_system_prompt(tmp_path: Path) -> None:
    order = mine(tmp_path, description="Answer {{n}}:")
    assert [row["prompt"] for row in made(order)[1]] == ["Answer 1:one", "Answer 2:two"]
    chat = Order(order.file, chat=True)
    with pytest.raises(TaskError, match="test, row 2: description: it is another one than that"):
        made(chat)
