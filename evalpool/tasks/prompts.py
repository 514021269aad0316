"""The prompts of a task: every question with its description, examples and choices.

Agrees with `ConfigurableTask.fewshot_context`, `build_qa_turn` and `construct_requests` in
`lm_eval/api/task.py`, release 0.4.13. In one thing it is row by row: whether a question has several
right answers, which lm-evaluation-harness decides by the first row for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evalpool.tasks.errors import TaskError
from evalpool.tasks.examples import ExampleSampler
from evalpool.tasks.functions import find_functions, known_function
from evalpool.tasks.recipes import choices_of, expected_of, phrase_of, target_of, text_of
from evalpool.tasks.task_file import Shots, TaskFile
from evalpool.tasks.yaml_file import Function

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ChoicePrompt:
    """A question with choices, as a model is asked.

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


@dataclass(frozen=True, slots=True)
class WrittenPrompt:
    """A question that is answered freely, as a model is asked.

    Attributes:
        system: What a conversation begins with; "" where the prompt has it.
        prompt: The text that is continued, or the user's turn.
        expected: The replies that are right.
        choices: The choices that a filter looks for in a reply, if one does.
    """

    system: str
    prompt: str
    expected: tuple[str, ...]
    choices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Manner:
    """How prompts are put.

    Attributes:
        chat: As a user's turn in a conversation, after the description as what the system says.
        system_prompt: Goes before the description.
    """

    chat: bool = False
    system_prompt: str = ""


Prompt = ChoicePrompt | WrittenPrompt


def task_prompts(
    task: TaskFile, splits: Mapping[str, Sequence[Row]], manner: Manner | None = None
) -> Iterator[Prompt]:
    """The questions of a task, in order.

    What concerns all rows is done by the call, one question with each step.

    Args:
        task: The task.
        splits: The rows of each split that it names.
        manner: How they are put. Default: as plain text.

    Raises:
        TaskError: The task cannot be put so, or a row cannot be asked; the message names it.
    """
    manner = manner or Manner()
    if manner.chat:
        _check_chat(task)
    # While files can be opened still.
    find_functions(task)
    rows = _rows(splits, task.split, task.process)
    return _prompts(task, rows, _sampler(task, splits), manner)


def _prompts(
    task: TaskFile, rows: Iterable[Row], sampler: ExampleSampler, manner: Manner
) -> Iterator[Prompt]:
    prompt: Callable[[TaskFile, Row, str, str], Prompt]
    prompt = _choice_prompt if task.generation is None else _written_prompt
    # The rule of lm-eval, also where neither names a split.
    same = task.shots.split == task.test
    for number, row in enumerate(rows, start=1):
        try:
            chosen = sampler.choose(row if same else None)
            examples = "".join(_example(task.shots, example) for example in chosen)
            system = _joined(
                manner.system_prompt,
                phrase_of(task.description, row, "description"),
                task.delimiter,
            )
            if manner.chat:
                yield prompt(task, row, system, examples)
            else:
                yield prompt(task, row, "", system + examples)
        except TaskError as error:
            raise TaskError(f"{task.split}, row {number}: {error}") from error


def _check_chat(task: TaskFile) -> None:
    if task.generation is None:
        raise TaskError(
            "output_type: the choices of multiple_choice continue a plain text here; leave out the "
            "chat template"
        )
    if task.prefix:
        raise TaskError(
            "gen_prefix: a reply cannot be begun in a conversation here; leave out the chat "
            "template"
        )


def _choice_prompt(task: TaskFile, row: Row, system: str, before: str) -> ChoicePrompt:
    choices = _choices(task.choices, row, "doc_to_choice")
    text = text_of(task.text, row, "doc_to_text")
    target = target_of(task.target, row, "doc_to_target")
    prefix = phrase_of(task.prefix, row, "gen_prefix")
    if isinstance(text, int):
        # Where the choices are prompts, what continues them is the same (partial scoring).
        if task.metric != "acc":
            raise TaskError(f"metric_list: {task.metric} says nothing where choices are prompts")
        continuation = f"{task.target_delimiter}{target}"
        prompts = tuple(before + choice + prefix for choice in choices)
        return ChoicePrompt(prompts, (continuation,) * len(choices), choices, _place(text, choices))
    return ChoicePrompt(
        (before + _joined(text, prefix, task.target_delimiter),),
        tuple(task.target_delimiter + choice for choice in choices),
        choices,
        _place(target, choices),
    )


def _written_prompt(task: TaskFile, row: Row, system: str, before: str) -> WrittenPrompt:
    text = text_of(task.text, row, "doc_to_text", places=task.choices is not None)
    if isinstance(text, int):
        raise TaskError("doc_to_text: choices that are prompts are not done for generate_until")
    if task.choices is None:
        expected = expected_of(task.target, row, "doc_to_target")
    else:
        place = target_of(task.target, row, "doc_to_target")
        if not isinstance(place, int):
            raise TaskError(f"doc_to_target: {place!r} is no place among the choices")
        choices = _choices(task.choices, row, "doc_to_choice")
        expected = [choices[_place(place, choices)]]
    prefix = phrase_of(task.prefix, row, "gen_prefix")
    looked_for: tuple[str, ...] = ()
    if task.generation is not None and task.generation.needs_choices:
        # The filter looks in the row, whatever doc_to_choice says.
        looked_for = _choices("choices", {"choices": None, **row}, "multi_choice_regex: choices")
    prompt = before + _joined(text, prefix, task.target_delimiter)
    return WrittenPrompt(system, prompt, tuple(expected), looked_for)


def _example(shots: Shots, row: Row) -> str:
    places = shots.choices is not None
    text = text_of(shots.text, row, "fewshot_config.doc_to_text", places=places)
    target = target_of(shots.target, row, "fewshot_config.doc_to_target", places=places)
    answer: Any = target
    if shots.choices is not None:
        choices = _choices(shots.choices, row, "fewshot_config.doc_to_choice")
        if isinstance(text, int):
            text = choices[_place(text, choices)]
        elif isinstance(target, int):
            answer = choices[_place(target, choices)]
    if isinstance(answer, list) and answer:
        answer = answer[0]
    if not isinstance(text, str) or not isinstance(answer, str):
        raise TaskError(f"fewshot_config.doc_to_target: {answer!r} is no text")
    prefix = phrase_of(shots.prefix, row, "fewshot_config.gen_prefix")
    if not answer:
        # Without an answer it is a question alone, and nothing is put behind it.
        return _joined(text, prefix, shots.target_delimiter)
    parted = not prefix or _run_together(text, prefix)
    between = shots.target_delimiter if parted else ""
    return text + between + _joined(prefix, answer, " ") + shots.delimiter


def _joined(before: str, behind: str, delimiter: str) -> str:
    """Two texts, with the delimiter where they would run together."""
    return before + (delimiter if _run_together(before, behind) else "") + behind


def _run_together(before: str, behind: str) -> bool:
    return bool(before and behind) and not (before[-1].isspace() or behind[0].isspace())


def _choices(recipe: Any, row: Row, field: str) -> tuple[str, ...]:
    return tuple(choices_of(recipe, row, field))


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
    rows: Sequence[Row] = ()
    if shots.number:
        split = task.shots_split
        process = shots.process if shots.split else task.process
        rows = _rows(splits, split, process) if split else shots.samples
    return ExampleSampler(shots.sampler, rows, shots.number)


def _rows(
    splits: Mapping[str, Sequence[Row]], split: str, process_docs: Function | None
) -> list[Row]:
    if split not in splits:
        raise TaskError(f"{split}: there are no rows of this split; give its file")
    rows = list(splits[split])
    if process_docs is None:
        return rows
    process = known_function(process_docs)
    made = []
    for number, row in enumerate(rows, start=1):
        try:
            processed = process(row)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise TaskError(
                f"{split}, row {number}: process_docs: it fails on the row: {error!r}"
            ) from error
        if processed is not None:
            made.append(processed)
    return made
