"""What a task file may ask for, and what is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from evalpool.tasks import TaskError, read_task

SOUND = """\
task: mine
dataset_path: json
dataset_kwargs: {data_files: {train: t.jsonl, test: [a.jsonl, b.jsonl]}}
output_type: multiple_choice
training_split: train
test_split: test
doc_to_text: "{{question}}"
doc_to_choice: options
doc_to_target: "{{answer}}"
num_fewshot: 2
metric_list: [{metric: acc_norm, aggregation: mean}, {metric: acc}]
metadata: {version: 1.0}
"""


def written(folder: Path, text: str, name: str = "task.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_file_is_read(tmp_path: Path) -> None:
    task = read_task(written(tmp_path, SOUND))
    assert (task.name, task.split, task.metric) == ("mine", "test", "acc_norm")
    assert (task.target_delimiter, task.shots.delimiter) == (" ", "\n\n")
    assert task.shots.number == 2
    assert task.data_files == {
        "train": (str(tmp_path / "t.jsonl"),),
        "test": (str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")),
    }


def test_what_a_file_says_goes_before_what_it_includes(tmp_path: Path) -> None:
    written(tmp_path, SOUND, "_base")
    task = read_task(written(tmp_path, "include: _base\ntask: other\nnum_fewshot: 0\n"))
    assert (task.name, task.shots.number, task.split) == ("other", 0, "test")


def test_examples_may_be_written_otherwise(tmp_path: Path) -> None:
    config = 'fewshot_config: {sampler: first_n, doc_to_text: "E: {{question}}", split: train}\n'
    shots = read_task(written(tmp_path, SOUND + config)).shots
    assert (shots.sampler, shots.text, shots.split) == ("first_n", "E: {{question}}", "train")
    assert shots.choices == "options"


def test_one_of_the_metrics_may_be_chosen(tmp_path: Path) -> None:
    path = written(
        tmp_path, SOUND.replace("[{metric: acc_norm", "[{metric: f1}, {metric: acc_norm")
    )
    with pytest.raises(TaskError, match="metric_list: 'f1' is not done here; use acc, acc_norm"):
        read_task(path)
    assert read_task(path, "acc").metric == "acc"
    with pytest.raises(TaskError, match="metric_list: 'acc_bytes' is not in it"):
        read_task(path, "acc_bytes")


def test_a_task_without_choices_is_generated(tmp_path: Path) -> None:
    kept = SOUND.replace("output_type: multiple_choice\n", "").partition("metric_list")[0]
    task = read_task(written(tmp_path, kept.replace("doc_to_choice: options\n", "")))
    assert task.choices is None
    assert task.generation is not None
    assert task.generation.stop == ("\n\n",)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("output_type: loglikelihood", "output_type: loglikelihood is not run here"),
        ("output_type: loglikelihood_rolling", "output_type: loglikelihood_rolling is not"),
        ("task: [one, two]", "task: the file is a group of tasks; import each task's own file"),
        ("class: !function task.Mine", "class: the task is a program in Python"),
        ("doc_to_txet: x", "doc_to_txet: the field is unknown"),
        ("process_results: !function u.f", "process_results: !function u.f is not done here"),
        ("doc_to_image: picture", "doc_to_image: 'picture' is not done here"),
        ("unsafe_code: true", "unsafe_code: True is not done here"),
        ("repeats: 3", "repeats: 3 is not done here"),
        ("num_fewshot: -1", "num_fewshot: -1 will not do; give a whole number from 0"),
        ("num_fewshot: many", "num_fewshot: 'many' will not do; give a whole number from 0"),
        ("fewshot_config: {sampler: balanced}", "fewshot_config.sampler: 'balanced' is not known"),
        ("fewshot_config: {process_docs: x}", "fewshot_config.process_docs: it is no function"),
        ("fewshot_config: {samples: !function u.f}", "fewshot_config.samples: it is no list"),
        ("metric_list: [{metric: f1}]", "metric_list: 'f1' is not done here; use acc, acc_norm"),
        ("metric_list: acc", "metric_list: it is no list of metrics"),
        (
            "metric_list: [{metric: acc, aggregation: f1}]",
            "metric_list acc.aggregation: 'f1' is not done here",
        ),
        ("metric_list: [{metric: acc, higher_is_better: false}]", "acc.higher_is_better: it is"),
        ("metric_list: [{metric: acc, k: 3}]", "metric_list acc.k: the field is unknown"),
        ("filter_list: [{name: none}]", "filter_list: .* is not done here"),
        (
            "fewshot_config: {fewshot_indices: [1]}",
            "fewshot_config.fewshot_indices: .* is not done",
        ),
        ("fewshot_config: {sapmler: x}", "fewshot_config.sapmler: the field is unknown"),
        ("gen_prefix: [a]", r"gen_prefix: \['a'\] is no text"),
        ("dataset_kwargs: {streaming: true}", "dataset_kwargs.streaming: it is not done here"),
        ("doc_to_choice: true", "doc_to_choice: True is no column, template, list or function"),
        ("doc_to_choice: null", "doc_to_choice: it is missing"),
        ("process_docs: utils.f", "process_docs: it is no function; name one with !function"),
        ("target_delimiter: 7", "target_delimiter: 7 is no text"),
        ("include: task.yaml", "include: task.yaml includes itself"),
    ],
)
def test_what_is_not_done_is_refused_by_name(tmp_path: Path, line: str, message: str) -> None:
    field = line.partition(":")[0]
    kept = "".join(each for each in SOUND.splitlines(True) if not each.startswith(f"{field}:"))
    with pytest.raises(TaskError, match=message):
        read_task(written(tmp_path, f"{kept}{line}\n"))


def test_a_file_without_a_split_to_ask_is_refused(tmp_path: Path) -> None:
    task = read_task(written(tmp_path, SOUND.replace("test_split: test\n", "")))
    with pytest.raises(TaskError, match="test_split: the file names neither"):
        _ = task.split
