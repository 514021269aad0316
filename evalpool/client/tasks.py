"""What a task of lm-evaluation-harness is as a dataset."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.message import Message

from evalpool.dataset.v1 import dataset_pb2
from evalpool.tasks import (
    SEED,
    ChoiceStep,
    Generation,
    Pipeline,
    RegexStep,
    TaskFile,
    Written,
)

_METRICS = {
    "acc": dataset_pb2.METRIC_ACC,
    "acc_norm": dataset_pb2.METRIC_ACC_NORM,
    "acc_bytes": dataset_pb2.METRIC_ACC_BYTES,
}
_AS_IT_IS = (Pipeline("none"),)


def task_dataset(
    dataset: str, task: TaskFile, written: Written, *, chat: bool = False, seed: int = 0
) -> dataset_pb2.CreateDatasetRequest:
    """The dataset that a task's rows belong to.

    Args:
        dataset: Its id.
        task: The task.
        written: What was written of it.
        chat: Whether its prompts are users' turns.
        seed: Of the choice of tokens, where models write.
    """
    shots = task.shots
    request = dataset_pb2.CreateDatasetRequest(
        id=dataset,
        kind=written.kind,
        title=task.name,
        description=f"lm-evaluation-harness's task {task.name}, "
        f"{shots.number} examples before each question.",
        few_shot=dataset_pb2.FewShot(number=shots.number),
    )
    if shots.number:
        request.few_shot.sampler = shots.sampler
        request.few_shot.seed = SEED if shots.sampler == "default" else 0
        request.few_shot.split = task.shots_split
    if task.generation is None:
        request.metric = _METRICS[task.metric]
        return request
    request.evaluator = dataset_pb2.EVALUATOR_EXACT_MATCH
    request.system_prompt = written.system_prompt
    _add_generation(request, task.generation, chat, seed)
    return request


def first_difference(
    dataset: dataset_pb2.Dataset, request: dataset_pb2.CreateDatasetRequest
) -> str | None:
    """Where a dataset that there is differs from one that is asked for, as a sentence."""
    # The others are of no use to the kind, and have its values.
    fields = ["kind", "metric", "few_shot"]
    if request.kind == "generation":
        fields = ["kind", "reply", "system_prompt", "filters", "exact_match", "few_shot"]
    return _difference(dataset, request, fields)


def _difference(
    dataset: Message, task: Message, fields: Iterable[str], within: str = ""
) -> str | None:
    for name in fields:
        there, here = getattr(dataset, name), getattr(task, name)
        field = dataset.DESCRIPTOR.fields_by_name[name]
        if isinstance(there, Message):
            found = _difference(there, here, there.DESCRIPTOR.fields_by_name, f"{within}{name}.")
            if found:
                return found
        elif there != here:
            if field.enum_type is not None:
                there, here = (
                    field.enum_type.values_by_number[number].name for number in (there, here)
                )
            if isinstance(there, str | int | bool):
                return f"{within}{name}: it is {there} in the dataset, and {here} in the task"
            return f"{within}{name}: the dataset has others than the task"
    return None


def _add_generation(
    request: dataset_pb2.CreateDatasetRequest, generation: Generation, chat: bool, seed: int
) -> None:
    request.reply.CopyFrom(
        dataset_pb2.Reply(
            form=dataset_pb2.PROMPT_FORM_CHAT if chat else dataset_pb2.PROMPT_FORM_PLAIN,
            max_tokens=generation.max_tokens,
            stop=generation.stop,
            temperature=generation.temperature,
            seed=seed,
        )
    )
    if generation.pipelines != _AS_IT_IS:
        request.filters.extend(map(_pipeline, generation.pipelines))
    comparison = generation.comparison
    request.exact_match.CopyFrom(
        dataset_pb2.ExactMatch(
            ignore_case=comparison.ignore_case,
            ignore_punctuation=comparison.ignore_punctuation,
            ignore_numbers=comparison.ignore_numbers,
            regexes_to_ignore=comparison.regexes_to_ignore,
        )
    )


def _pipeline(pipeline: Pipeline) -> dataset_pb2.FilterPipeline:
    return dataset_pb2.FilterPipeline(name=pipeline.name, steps=map(_step, pipeline.steps))


def _step(step: RegexStep) -> dataset_pb2.Filter:
    if isinstance(step, ChoiceStep):
        return dataset_pb2.Filter(
            multi_choice_regex=dataset_pb2.MultiChoiceRegexFilter(
                pattern=step.pattern,
                group_select=step.group_select,
                fallback=step.fallback,
                ignore_case=step.ignore_case,
                ignore_punctuation=step.ignore_punctuation,
                regexes_to_ignore=step.regexes_to_ignore,
            )
        )
    return dataset_pb2.Filter(
        regex=dataset_pb2.RegexFilter(
            pattern=step.pattern, group_select=step.group_select, fallback=step.fallback
        )
    )
