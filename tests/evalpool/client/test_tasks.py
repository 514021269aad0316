"""The dataset that a task's rows belong to."""

from __future__ import annotations

from dataclasses import replace

from evalpool.client.tasks import first_difference, task_dataset
from evalpool.dataset.v1 import dataset_pb2
from evalpool.tasks import ChoiceStep, Comparison, Generation, Pipeline, RegexStep, Written
from tests.evalpool.tasks.lm_eval_files import task

WRITTEN = Written("generation", "Be brief.", 1, (), 0)
GENERATION = Generation(
    max_tokens=9,
    stop=("a", "b"),
    temperature="0.5",
    pipelines=(
        Pipeline("plain"),
        Pipeline(
            "both",
            (
                RegexStep("(x)", -1, "none"),
                ChoiceStep("(y)", 2, "", ignore_punctuation=True, regexes_to_ignore=("z",)),
                ChoiceStep("(y)", ignore_case=True),
            ),
        ),
    ),
    comparison=Comparison(ignore_case=True, ignore_numbers=True, regexes_to_ignore=("q",)),
)


def test_all_of_how_models_write_and_are_compared_goes_along() -> None:
    file = replace(task("gsm8k"), generation=GENERATION)
    request = task_dataset("mine", file, WRITTEN, chat=True, seed=3)
    expected = dataset_pb2.CreateDatasetRequest(
        id="mine",
        kind="generation",
        title="gsm8k",
        description="lm-evaluation-harness's task gsm8k, 5 examples before each question.",
        evaluator=dataset_pb2.EVALUATOR_EXACT_MATCH,
        system_prompt="Be brief.",
        reply=dataset_pb2.Reply(
            form=dataset_pb2.PROMPT_FORM_CHAT,
            max_tokens=9,
            stop=["a", "b"],
            temperature="0.5",
            seed=3,
        ),
        exact_match=dataset_pb2.ExactMatch(
            ignore_case=True, ignore_numbers=True, regexes_to_ignore=["q"]
        ),
        few_shot=dataset_pb2.FewShot(number=5, sampler="default", seed=1234, split="train"),
    )
    expected.filters.add(name="plain")
    both = expected.filters.add(name="both")
    both.steps.add().regex.CopyFrom(
        dataset_pb2.RegexFilter(pattern="(x)", group_select=-1, fallback="none")
    )
    both.steps.add().multi_choice_regex.CopyFrom(
        dataset_pb2.MultiChoiceRegexFilter(
            pattern="(y)",
            group_select=2,
            fallback="",
            ignore_punctuation=True,
            regexes_to_ignore=["z"],
        )
    )
    both.steps.add().multi_choice_regex.CopyFrom(
        dataset_pb2.MultiChoiceRegexFilter(pattern="(y)", fallback="[invalid]", ignore_case=True)
    )
    assert request == expected


def test_examples_that_the_file_has_come_from_no_split() -> None:
    request = task_dataset("mine", task("gsm8k_cot"), WRITTEN)
    assert request.few_shot == dataset_pb2.FewShot(number=8, sampler="first_n")


def test_choices_have_a_metric_and_nothing_that_is_written() -> None:
    written = Written("continuation", "", 1, (), 0)
    request = task_dataset("mine", replace(task("piqa"), metric="acc_norm"), written)
    assert request == dataset_pb2.CreateDatasetRequest(
        id="mine",
        kind="continuation",
        title="piqa",
        description="lm-evaluation-harness's task piqa, 0 examples before each question.",
        metric=dataset_pb2.METRIC_ACC_NORM,
        few_shot=dataset_pb2.FewShot(number=0),
    )
    there = dataset_pb2.Dataset(
        kind="continuation", metric=dataset_pb2.METRIC_ACC, system_prompt="The kind's."
    )
    assert first_difference(there, request) == (
        "metric: it is METRIC_ACC in the dataset, and METRIC_ACC_NORM in the task"
    )
    there.metric = dataset_pb2.METRIC_ACC_NORM
    assert first_difference(there, request) is None
