"""Reading lm-evaluation-harness's task files: YAML with `include` and `!function`.

What a file asks for and this package does not do is refused by name, so that no task is run as
something else. The fields are those of `lm_eval/config/task.py`, release 0.4.13.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from evalpool.tasks.errors import TaskError

MULTIPLE_CHOICE = "multiple_choice"
METRICS = ("acc", "acc_norm", "acc_bytes")
SAMPLERS = ("default", "first_n")


@dataclass(frozen=True, slots=True)
class Function:
    """A Python function that a file names with `!function`.

    Attributes:
        name: As it is written, such as "utils.process_docs".
        source: The Python file that should define it.
    """

    name: str
    source: Path


Recipe = str | int | list[Any] | dict[str, Any] | Function
"""How something is made of a row: a column's name, a template, a constant, or a function."""


@dataclass(frozen=True, slots=True)
class Shots:
    """How examples are chosen and written.

    Attributes:
        number: Examples before each question.
        split: Where they come from; None: lm-eval's rule.
        samples: The examples themselves, where the file has them.
        sampler: "default" draws them, "first_n" takes the first.
        text: As `TaskFile.text`, for examples.
        target: As `TaskFile.target`, for examples.
        choices: As `TaskFile.choices`, for examples.
        target_delimiter: Between an example and its answer.
        delimiter: After each example.
    """

    number: int
    split: str | None
    samples: tuple[Mapping[str, Any], ...]
    sampler: str
    text: Recipe
    target: Recipe
    choices: Recipe
    target_delimiter: str
    delimiter: str


@dataclass(frozen=True, slots=True)
class TaskFile:
    """A multiple-choice task.

    Attributes:
        name: The task's name.
        dataset: `dataset_path`: "json", "csv" or "parquet", or a name on the hub.
        data_files: Files by split, where the task names local ones.
        training: The split to train on, if any.
        validation: The split to validate on, if any.
        test: The split to test on, if any.
        process: What is made of all rows first, if anything.
        description: What every prompt begins with; a column's name or a template.
        text: The prompt.
        target: The right choice.
        choices: The choices.
        target_delimiter: Between the prompt and a choice.
        shots: The examples.
        metric: The first metric that the file lists.
    """

    name: str
    dataset: str
    data_files: Mapping[str, tuple[str, ...]]
    training: str | None
    validation: str | None
    test: str | None
    process: Function | None
    description: str
    text: Recipe
    target: Recipe
    choices: Recipe
    target_delimiter: str
    shots: Shots
    metric: str

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


def read_task(path: Path) -> TaskFile:
    """Read a task file and what it includes.

    Raises:
        TaskError: It cannot be read, or asks for what is not done here.
        OSError: A file cannot be read.
    """
    values = _Values(_load(path, ()), path)
    output = values.text("output_type", "generate_until")
    if output != MULTIPLE_CHOICE:
        raise TaskError(f"output_type: {output} is not run here; {MULTIPLE_CHOICE} is")
    for name in ("doc_to_text", "doc_to_target", "doc_to_choice", "dataset_path"):
        if values.get(name) is None:
            raise TaskError(f"{name}: it is missing")
    text = values.recipe("doc_to_text")
    target = values.recipe("doc_to_target")
    choices = values.recipe("doc_to_choice")
    kwargs = values.mapping("dataset_kwargs")
    task = TaskFile(
        name=values.text("task", path.stem),
        dataset=values.text("dataset_path", ""),
        data_files=_data_files(kwargs, path.parent),
        training=values.optional("training_split"),
        validation=values.optional("validation_split"),
        test=values.optional("test_split"),
        process=values.function("process_docs"),
        description=values.text("description", ""),
        text=text,
        target=target,
        choices=choices,
        target_delimiter=values.text("target_delimiter", " "),
        shots=_shots(values, text, target, choices),
        metric=_metric(values.get("metric_list")),
    )
    values.refuse_others()
    return task


# Without a bearing on prompts and choices, or about where a dataset lies on the hub.
_WITHOUT_EFFECT = frozenset(
    {
        "dataset_name",
        "doc_to_decontamination_query",
        "group",
        "metadata",
        "should_decontaminate",
        "tag",
        "task_alias",
    }
)
_ONLY: Mapping[str, tuple[Any, ...]] = {
    "doc_to_audio": (None,),
    "doc_to_image": (None,),
    "filter_list": (None,),
    "gen_prefix": (None, ""),
    "generation_kwargs": (None,),
    "process_results": (None,),
    "repeats": (None, 1),
    "unsafe_code": (None, False),
    "use_prompt": (None, ""),
    "custom_dataset": (None,),
}


@dataclass(slots=True)
class _Values:
    """A file's fields, and which of them have been looked at."""

    values: Mapping[str, Any]
    path: Path
    seen: set[str] = field(default_factory=set)

    def get(self, name: str) -> Any:
        self.seen.add(name)
        return self.values.get(name)

    def text(self, name: str, default: str) -> str:
        value = self.get(name)
        if value is None:
            return default
        if not isinstance(value, str):
            raise TaskError(f"{name}: {value!r} is no text; put it between quotation marks")
        return value

    def optional(self, name: str) -> str | None:
        return self.text(name, "") or None

    def mapping(self, name: str) -> Mapping[str, Any]:
        value = self.get(name) or {}
        if not isinstance(value, Mapping):
            raise TaskError(f"{name}: it is no mapping")
        return value

    def recipe(self, name: str) -> Recipe:
        return _recipe(name, self.get(name))

    def function(self, name: str) -> Function | None:
        value = self.get(name)
        if value is not None and not isinstance(value, Function):
            raise TaskError(f"{name}: it is no function; name one with !function")
        return value

    def refuse_others(self) -> None:
        for name, value in self.values.items():
            if name in self.seen or name in _WITHOUT_EFFECT:
                continue
            allowed = _ONLY.get(name)
            if allowed is None:
                raise TaskError(f"{name}: the field is unknown; correct its name or remove it")
            if value not in allowed:
                raise TaskError(
                    f"{name}: it is not done here; remove it, or run the task elsewhere"
                )


def _recipe(name: str, value: Any) -> Recipe:
    if isinstance(value, str | int | list | dict | Function) and not isinstance(value, bool):
        return value
    raise TaskError(f"{name}: {value!r} is no column, template, list or function")


def _shots(values: _Values, text: Recipe, target: Recipe, choices: Recipe) -> Shots:
    config = values.mapping("fewshot_config")
    known = {
        "sampler",
        "split",
        "samples",
        "doc_to_text",
        "doc_to_target",
        "doc_to_choice",
        "target_delimiter",
        "fewshot_delimiter",
    }
    for name in config:
        if name not in known:
            raise TaskError(f"fewshot_config.{name}: it is not done here; remove it")
    number = values.get("num_fewshot") or 0
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise TaskError(f"num_fewshot: {number!r} is no number of examples; give 0 or more")
    sampler = config.get("sampler", "default")
    if sampler not in SAMPLERS:
        raise TaskError(
            f"fewshot_config.sampler: {sampler!r} is not known; use {' or '.join(SAMPLERS)}"
        )
    samples = config.get("samples") or ()
    if isinstance(samples, str | Mapping | Function) or not isinstance(samples, Sequence):
        raise TaskError("fewshot_config.samples: it is no list of rows; write them in the file")
    own = values.optional("fewshot_split")
    target_delimiter = values.text("target_delimiter", " ")
    delimiter = values.text("fewshot_delimiter", "\n\n")
    return Shots(
        number=number,
        split=config.get("split", own),
        samples=tuple(samples),
        sampler=sampler,
        text=_recipe("fewshot_config.doc_to_text", config.get("doc_to_text", text)),
        target=_recipe("fewshot_config.doc_to_target", config.get("doc_to_target", target)),
        choices=_recipe("fewshot_config.doc_to_choice", config.get("doc_to_choice", choices)),
        target_delimiter=config.get("target_delimiter", target_delimiter),
        delimiter=config.get("fewshot_delimiter", delimiter),
    )


def _metric(listed: Any) -> str:
    if listed is None:
        return METRICS[0]
    if not isinstance(listed, list) or not all(isinstance(each, Mapping) for each in listed):
        raise TaskError("metric_list: it is no list of metrics")
    names = [each.get("metric") for each in listed]
    for name in names:
        if name not in METRICS:
            raise TaskError(f"metric_list: {name!r} is not done here; use {', '.join(METRICS)}")
    return str(names[0]) if names else METRICS[0]


def _data_files(kwargs: Mapping[str, Any], folder: Path) -> dict[str, tuple[str, ...]]:
    files = kwargs.get("data_files") or {}
    for name in kwargs:
        if name not in ("data_files", "trust_remote_code"):
            raise TaskError(f"dataset_kwargs.{name}: it is not done here; remove it")
    if not isinstance(files, Mapping):
        # Without splits everything is the training split, as the library `datasets` has it.
        files = {"train": files}
    found = {}
    for split, named in files.items():
        each = (named,) if isinstance(named, str) else tuple(named)
        found[str(split)] = tuple(str(folder / name) for name in each)
    return found


def _load(path: Path, including: tuple[Path, ...]) -> dict[str, Any]:
    path = path.resolve()
    if path in including:
        raise TaskError(f"include: {path.name} includes itself")
    try:
        values = yaml.load(path.read_bytes(), Loader=_loader(path.parent))  # noqa: S506 - a safe one
    except yaml.YAMLError as error:
        raise TaskError(f"{path.name}: it is no YAML: {error}") from error
    if not isinstance(values, dict):
        raise TaskError(f"{path.name}: it has no fields")
    included = values.pop("include", None) or ()
    merged: dict[str, Any] = {}
    for name in (included,) if isinstance(included, str) else included:
        merged |= _load(path.parent / name, (*including, path))
    return merged | values


def _loader(folder: Path) -> type[yaml.SafeLoader]:
    class Loader(yaml.SafeLoader):
        """Knows `!function`, which is only noted here."""

    def function(loader: yaml.SafeLoader, node: yaml.Node) -> Function:
        if not isinstance(node, yaml.ScalarNode):
            raise TaskError("!function: it names no function; write a module and a function")
        name = str(loader.construct_scalar(node))
        module = name.rpartition(".")[0]
        return Function(name, folder / f"{module.replace('.', '/')}.py")

    Loader.add_constructor("!function", function)
    return Loader
