"""What a task file of lm-evaluation-harness asks for.

What a file asks for and this package does not do is refused by name, so that no task is run as
something else. The fields are those of `lm_eval/config/task.py`, release 0.4.13.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalpool.tasks.errors import TaskError
from evalpool.tasks.fields import Fields, Recipe, shown
from evalpool.tasks.generation import Generation, metrics_of, read_generation
from evalpool.tasks.yaml_file import Function, read_yaml

MULTIPLE_CHOICE = "multiple_choice"
GENERATE_UNTIL = "generate_until"
METRICS = ("acc", "acc_norm", "acc_bytes")
SAMPLERS = ("default", "first_n")
LOCAL = ("json", "csv", "parquet")
"""What `dataset_path` is where the rows lie in files that the task names."""


@dataclass(frozen=True, slots=True)
class Shots:
    """How examples are chosen and written.

    Attributes:
        number: Examples before each question.
        split: Where they come from; None: lm-eval's rule.
        samples: The examples themselves, where the file has them.
        process: As `TaskFile.process`, for examples.
        sampler: "default" draws them, "first_n" takes the first.
        text: As `TaskFile.text`, for examples.
        target: As `TaskFile.target`, for examples.
        choices: As `TaskFile.choices`, for examples.
        prefix: As `TaskFile.prefix`, for examples.
        target_delimiter: Between an example and its answer.
        delimiter: After each example.
    """

    number: int
    split: str | None
    samples: tuple[Mapping[str, Any], ...]
    process: Function | None
    sampler: str
    text: Recipe
    target: Recipe
    choices: Recipe | None
    prefix: str
    target_delimiter: str
    delimiter: str


@dataclass(frozen=True, slots=True)
class TaskFile:
    """A task.

    Attributes:
        name: The task's name.
        dataset: `dataset_path`: "json", "csv" or "parquet", or a name on the hub.
        hub: Whether the rows are elsewhere: on the hub, or at an address.
        configuration: `dataset_name`: which of the hub's configurations of it, if any.
        dataset_kwargs: What else the hub is asked.
        data_files: Files by split, where the task names local ones.
        training: The split to train on, if any.
        validation: The split to validate on, if any.
        test: The split to test on, if any.
        process: What is made of all rows first, if anything.
        description: What every prompt begins with; a column's name or a template.
        text: The prompt.
        target: The right choice, or what is expected.
        choices: The choices; None where the answer is written freely.
        prefix: What an answer begins with: it ends the prompt; a column's name or a template.
        target_delimiter: Between the prompt and a choice.
        delimiter: Between the parts of a prompt.
        shots: The examples.
        metric: The first metric that the file lists, of multiple choice.
        generation: How models write and how they are compared; None for multiple choice.
    """

    name: str
    dataset: str
    hub: bool
    configuration: str | None
    dataset_kwargs: Mapping[str, Any]
    data_files: Mapping[str, tuple[str, ...]]
    training: str | None
    validation: str | None
    test: str | None
    process: Function | None
    description: str
    text: Recipe
    target: Recipe
    choices: Recipe | None
    prefix: str
    target_delimiter: str
    delimiter: str
    shots: Shots
    metric: str
    generation: Generation | None

    @property
    def split(self) -> str:
        """The split that is asked: the test split, or the validation split.

        Raises:
            TaskError: The file names neither.
        """
        found = self.test or self.validation
        if found is None:
            raise TaskError("test_split: the file names neither it nor validation_split; add one")
        return found

    @property
    def shots_split(self) -> str:
        """The split that examples come from; "" where the file has them itself, or none are."""
        if not self.shots.number or (self.shots.split is None and self.shots.samples):
            return ""
        return self.shots.split or self.training or self.validation or self.split


def read_task(path: Path, metric: str | None = None) -> TaskFile:
    """Read a task file and what it includes.

    Args:
        path: The file.
        metric: Of the metrics that it lists, the only one. Default: all of them.

    Raises:
        TaskError: It cannot be read, or asks for what is not done here.
        OSError: A file cannot be read.
    """
    fields = Fields(read_yaml(path))
    _refuse_groups(fields.values)
    output = fields.text("output_type", GENERATE_UNTIL)
    if output not in (MULTIPLE_CHOICE, GENERATE_UNTIL):
        raise TaskError(
            f"output_type: {output} is not run here; {MULTIPLE_CHOICE} and {GENERATE_UNTIL} are"
        )
    needed = ["doc_to_text", "doc_to_target", "dataset_path"]
    if output == MULTIPLE_CHOICE:
        needed.append("doc_to_choice")
    for name in needed:
        if fields.get(name) is None:
            raise TaskError(f"{name}: it is missing")
    delimiter = fields.text("fewshot_delimiter", "\n\n")
    metrics = _chosen_metrics(fields.get("metric_list"), metric)
    generated = output == GENERATE_UNTIL
    dataset = fields.text("dataset_path")
    kwargs = fields.mapping("dataset_kwargs")
    hub = dataset not in LOCAL or "://" in str(kwargs.get("data_files"))
    task = TaskFile(
        name=fields.text("task", path.stem),
        dataset=dataset,
        hub=hub,
        configuration=fields.optional("dataset_name"),
        dataset_kwargs=_hub_kwargs(kwargs) if hub else {},
        data_files={} if hub else _data_files(kwargs, path.parent),
        training=fields.optional("training_split"),
        validation=fields.optional("validation_split"),
        test=fields.optional("test_split"),
        process=fields.function("process_docs"),
        description=fields.text("description"),
        text=fields.recipe("doc_to_text"),
        target=fields.recipe("doc_to_target"),
        choices=_optional_recipe(fields, "doc_to_choice"),
        prefix=fields.text("gen_prefix"),
        target_delimiter=fields.text("target_delimiter", " "),
        delimiter=delimiter,
        shots=_shots(fields, delimiter),
        metric=METRICS[0] if generated else _metric(metrics),
        generation=read_generation(fields, delimiter, metrics) if generated else None,
    )
    if generated:
        fields.refuse_others(_ONLY, _WITHOUT_EFFECT)
    else:
        fields.refuse_others(_ONLY_CHOSEN, _WITHOUT_EFFECT_CHOSEN)
    return task


# Without a bearing on prompts and answers.
_WITHOUT_EFFECT = frozenset(
    {
        "doc_to_decontamination_query",
        "group",
        "metadata",
        "should_decontaminate",
        "tag",
        "task_alias",
    }
)
_ONLY: Mapping[str, tuple[Any, ...]] = {
    "custom_dataset": (None,),
    "doc_to_audio": (None,),
    "doc_to_image": (None,),
    "process_results": (None,),
    "repeats": (None, 1),
    "unsafe_code": (None, False),
    "use_prompt": (None, ""),
}
# Of multiple choice: lm-evaluation-harness takes no notice of how something would be generated, and
# of filters only these leave the answers as they are.
_WITHOUT_EFFECT_CHOSEN = _WITHOUT_EFFECT | {"generation_kwargs"}
_ONLY_CHOSEN: Mapping[str, tuple[Any, ...]] = {**_ONLY, "filter_list": (None,)}
_OF_METRICS = frozenset(
    {"hf_evaluate", "ignore_case", "ignore_punctuation", "regexes_to_ignore", "weight_by_size"}
)
"""What lm-evaluation-harness takes no notice of where choices are scored."""


def _refuse_groups(values: Mapping[str, Any]) -> None:
    if isinstance(values.get("task"), list):
        raise TaskError("task: the file is a group of tasks; import each task's own file")
    if "class" in values:
        raise TaskError("class: the task is a program in Python, which is not run")


def _optional_recipe(fields: Fields, name: str) -> Recipe | None:
    return None if fields.get(name) is None else fields.recipe(name)


def _shots(task: Fields, delimiter: str) -> Shots:
    fields = Fields(task.mapping("fewshot_config"), "fewshot_config")
    sampler = fields.text("sampler", SAMPLERS[0])
    if sampler not in SAMPLERS:
        raise TaskError(
            f"fewshot_config.sampler: {sampler!r} is not known; use {' or '.join(SAMPLERS)}"
        )
    samples = fields.get("samples")
    samples = [] if samples is None else samples
    if not isinstance(samples, list) or not all(isinstance(row, Mapping) for row in samples):
        raise TaskError("fewshot_config.samples: it is no list of rows; write them in the file")
    choices = fields.get("doc_to_choice") or task.get("doc_to_choice")
    shots = Shots(
        number=task.integer("num_fewshot", 0, at_least=0),
        split=fields.optional("split") or task.optional("fewshot_split"),
        samples=tuple(samples),
        process=fields.function("process_docs", task.function("process_docs")),
        sampler=sampler,
        text=fields.recipe("doc_to_text", task.recipe("doc_to_text")),
        target=fields.recipe("doc_to_target", task.recipe("doc_to_target")),
        choices=None if choices is None else fields.recipe("doc_to_choice", choices),
        prefix=fields.text("gen_prefix", task.text("gen_prefix")),
        target_delimiter=fields.text("target_delimiter", task.text("target_delimiter", " ")),
        delimiter=fields.text("fewshot_delimiter", delimiter),
    )
    # lm-evaluation-harness takes no notice of `fewshot_indices`, so a file with them is a mistake.
    fields.refuse_others({"fewshot_indices": (None,)}, frozenset())
    return shots


def _chosen_metrics(listed: Any, metric: str | None) -> Any:
    if metric is None or not isinstance(listed, list):
        return listed
    kept = [each for each in listed if isinstance(each, Mapping) and each.get("metric") == metric]
    if not kept:
        raise TaskError(f"metric_list: {shown(metric)} is not in it")
    return kept


def _metric(listed: Any) -> str:
    if listed is None:
        return METRICS[0]
    metrics = metrics_of(listed, METRICS)
    for metric in metrics:
        metric.refuse_others({}, _OF_METRICS)
    return str(metrics[0].get("metric")) if metrics else METRICS[0]


_HUB_KWARGS = frozenset(
    {"column_names", "data_dir", "data_files", "header", "revision", "trust_remote_code"}
)


def _hub_kwargs(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    for name in kwargs:
        # Whether Python of the hub may be run is nothing that a task file decides.
        if name not in _HUB_KWARGS:
            raise TaskError(f"dataset_kwargs.{name}: it is not done here; remove it")
    return {name: value for name, value in kwargs.items() if name != "trust_remote_code"}


def _data_files(kwargs: Mapping[str, Any], folder: Path) -> dict[str, tuple[str, ...]]:
    for name in kwargs:
        if name not in ("data_files", "trust_remote_code"):
            raise TaskError(f"dataset_kwargs.{name}: it is not done here; remove it")
    files = kwargs.get("data_files") or {}
    if not isinstance(files, Mapping):
        # Without splits everything is the training split, as the library `datasets` has it.
        files = {"train": files}
    found = {}
    for split, named in files.items():
        each = [named] if isinstance(named, str) else named
        if not isinstance(each, list) or not all(isinstance(name, str) for name in each):
            raise TaskError(f"dataset_kwargs.data_files: {shown(named)} names no files")
        found[str(split)] = tuple(str(folder / name) for name in each)
    return found
