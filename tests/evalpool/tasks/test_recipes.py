"""What is made of a row, and what templates may not do."""

from __future__ import annotations

from pathlib import Path

import pytest

from evalpool.tasks import TaskError
from evalpool.tasks.functions import known_function
from evalpool.tasks.recipes import choices_of, phrase_of, target_of, text_of
from evalpool.tasks.yaml_file import Function
from tests.evalpool.tasks.lm_eval_files import FOLDER

ROW = {"question": "Why {{not}}?", "options": ["yes", "no"], "n": 1, "digits": "12", "empty": ""}


def test_a_columns_name_gives_the_column_as_it_stands() -> None:
    assert text_of("question", ROW, "f") == "Why {{not}}?"
    assert text_of("digits", ROW, "f") == "12"
    assert choices_of("options", ROW, "f") == ["yes", "no"]
    assert target_of("n", ROW, "f") == 1
    assert phrase_of("empty", ROW, "f") == ""


def test_a_template_gives_a_text_or_a_number() -> None:
    assert text_of("Q: {{question}}\n", ROW, "f") == "Q: Why {{not}}?\n"
    assert text_of("{{digits}}", ROW, "f") == 12
    assert target_of("{{n}}", ROW, "f") == 1
    assert target_of("{{options[0]}}", ROW, "f") == "yes"
    assert target_of("{{[0, 1]}}", ROW, "f") == [0, 1]
    assert choices_of("{{options | reverse | list}}", ROW, "f") == ["no", "yes"]
    assert phrase_of("{{question | regex_replace('W', 'H')}}", ROW, "f") == "Hhy {{not}}?"


def test_choices_may_be_constant() -> None:
    assert choices_of(["A", "B"], ROW, "f") == ["A", "B"]
    assert choices_of({"a": "yes", "b": "no"}, ROW, "f") == ["yes", "no"]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ ''.__class__.__mro__ }}", "reaches for what it may not"),
        ("{{ options.append('x') }}", "reaches for what it may not"),
        ("{{ question.format.__globals__ }}", "reaches for what it may not"),
        ("{{ missing }}", "'missing' is undefined"),
        ("{{ options[7] }}", "the template fails"),
        ("{{ n / 0 }}", "the template fails"),
        ("{% for i in range(999999999) %}{% endfor %}", "the template fails"),
        ("{{ question", "the template fails"),
        ("{% include 'other' %}", "the template fails"),
    ],
)
def test_a_template_that_fails_says_so(template: str, message: str) -> None:
    with pytest.raises(TaskError, match=f"doc_to_text: .*{message}"):
        text_of(template, ROW, "doc_to_text")


@pytest.mark.parametrize("template", ["{{question}}", "{{[1, 2]}}", "{{n}}"])
def test_choices_that_are_no_texts_are_refused(template: str) -> None:
    with pytest.raises(TaskError, match=r"doc_to_choice: .* is no list"):
        choices_of(template, ROW, "doc_to_choice")


def test_python_of_a_task_is_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    source = tmp_path / "utils.py"
    source.write_text(f"open({str(marker)!r}, 'w')\ndef doc_to_text(doc):\n    return 'x'\n")
    with pytest.raises(TaskError, match=r"!function utils\.doc_to_text: it is not known here"):
        text_of(Function("utils.doc_to_text", source), ROW, "doc_to_text")
    assert not marker.exists()


def test_a_function_whose_file_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"!function utils\.f: utils\.py is not there"):
        text_of(Function("utils.f", tmp_path / "utils.py"), ROW, "doc_to_text")


@pytest.mark.parametrize(
    ("name", "function", "row", "kept"),
    [
        ("global_mmlu_full_de_anatomy", "process_anatomy", {"subject": "anatomy"}, True),
        ("global_mmlu_full_de_anatomy", "process_anatomy", {"subject": "virology"}, False),
        ("include_base_44_greek_stem", "process_arts_humanities", {"domain": "STEM"}, False),
        ("include_base_44_greek_stem", "process_stem", {"domain": "STEM"}, True),
    ],
)
def test_rows_of_another_subject_are_left_out(
    name: str, function: str, row: dict[str, str], kept: bool
) -> None:
    process = known_function(Function(f"utils.{function}", FOLDER / "tasks" / name / "utils.py"))
    assert process(row) == (row if kept else None)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("global_mmlu_full_de_anatomy", "process_docs"),
        ("global_mmlu_full_de_anatomy", "partial"),
        ("include_base_44_greek_stem", "process_botany"),
        ("hellaswag", "process_anatomy"),
    ],
)
def test_what_is_not_a_tasks_function_is_not_known(name: str, function: str) -> None:
    with pytest.raises(TaskError, match="it is not known here"):
        known_function(Function(f"utils.{function}", FOLDER / "tasks" / name / "utils.py"))
