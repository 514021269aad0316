"""The prompts of a task: every question with its description, examples and choices.

Agrees with `ConfigurableTask.fewshot_context`, `build_qa_turn` and `construct_requests` in
`lm_eval/api/task.py`, release 0.4.13, without a chat template.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evalpool.tasks.errors import TaskError
from evalpool.tasks.examples import ExampleSampler
from evalpool.tasks.functions import known_function
from evalpool.tasks.recipes import choices_of, phrase_of, target_of, text_of
from evalpool.tasks.task_file import Shots, TaskFile

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ChoicePrompt:
    """A question as a model is asked.

    Attributes:
        prompts: What each choice continues: one for all choices, or one a choice.
        continuations: What continues them, with the delimiter before it: one a choice.
        choices: The choices, whose lengths normalise.
        answer: The right choice's place, from 0.
    """

    prompts: tuple[str, ...]
    continuations: tuple[str, ...]
    choices: tuple[str, ...]
    answer: int


def choice_prompts(task: TaskFile, splits: Mapping[str, Sequence[Row]]) -> Iterator[ChoicePrompt]:
    """The questions of a task, in order.

    Args:
        task: The task.
        splits: The rows of each split that it names.

    Raises:
        TaskError: A row cannot be asked; the message names it.
    """
    rows = _rows(task, splits, task.split)
    sampler = _sampler(task, splits)
    # The rule of lm-eval, also where neither names a split.
    same = task.shots.split == task.test
    for number, row in enumerate(rows, start=1):
        try:
            examples = sampler.choose(row if same else None)
            yield _prompt(task, row, examples)
        except TaskError as error:
            raise TaskError(f"{task.split}, row {number}: {error}") from error


def _prompt(task: TaskFile, row: Row, examples: Iterable[Row]) -> ChoicePrompt:
    choices = tuple(choices_of(task.choices, row, "doc_to_choice"))
    text = text_of(task.text, row, "doc_to_text")
    target = target_of(task.target, row, "doc_to_target")
    before = _before(task, row, examples)
    if isinstance(text, int):
        # Where the choices are prompts, what continues them is the same (partial scoring).
        if task.metric != "acc":
            raise TaskError(f"metric_list: {task.metric} says nothing where choices are prompts")
        continuation = f"{task.target_delimiter}{target}"
        prompts = tuple(before + choice for choice in choices)
        return ChoicePrompt(prompts, (continuation,) * len(choices), choices, _place(text, choices))
    return ChoicePrompt(
        (before + text,),
        tuple(task.target_delimiter + choice for choice in choices),
        choices,
        _place(target, choices),
    )


def _before(task: TaskFile, row: Row, examples: Iterable[Row]) -> str:
    description = phrase_of(task.description, row, "description")
    return description + "".join(_example(task.shots, example) for example in examples)


def _example(shots: Shots, row: Row) -> str:
    text = text_of(shots.text, row, "fewshot_config.doc_to_text")
    choices = choices_of(shots.choices, row, "fewshot_config.doc_to_choice")
    target = target_of(shots.target, row, "fewshot_config.doc_to_target")
    if isinstance(text, int):
        text, answer = choices[_place(text, choices)], target
    else:
        answer = choices[_place(target, choices)] if isinstance(target, int) else target
    if isinstance(answer, list):
        answer = answer[0]
    return f"{text}{shots.target_delimiter}{answer}{shots.delimiter}"


def _place(target: str | int | list[Any], choices: Sequence[str]) -> int:
    if isinstance(target, list):
        raise TaskError("doc_to_target: there are several right choices, which is not done here")
    if isinstance(target, str):
        if target not in choices:
            raise TaskError(f"doc_to_target: {target!r} is none of the choices")
        return choices.index(target)
    if not 0 <= target < len(choices):
        raise TaskError(f"doc_to_target: {target} is no place among {len(choices)} choices")
    return target


def _sampler(task: TaskFile, splits: Mapping[str, Sequence[Row]]) -> ExampleSampler:
    shots = task.shots
    if not shots.number:
        return ExampleSampler(shots.sampler, (), 0)
    if shots.split is not None or not shots.samples:
        split = shots.split or task.training or task.validation or task.split
        rows: Sequence[Row] = _rows(task, splits, split)
    else:
        rows = shots.samples
    return ExampleSampler(shots.sampler, rows, shots.number)


def _rows(task: TaskFile, splits: Mapping[str, Sequence[Row]], split: str) -> list[Row]:
    if split not in splits:
        raise TaskError(f"{split}: there are no rows of this split; give its file")
    rows = list(splits[split])
    if task.process is None:
        return rows
    process = known_function(task.process)
    made = []
    for number, row in enumerate(rows, start=1):
        try:
            made.append(process(row))
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise TaskError(
                f"{split}, row {number}: process_docs: it fails on the row: {error!r}"
            ) from error
    return made
