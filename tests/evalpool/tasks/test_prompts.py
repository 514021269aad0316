"""The prompts of lm-evaluation-harness's tasks, letter by letter."""

from __future__ import annotations

from dataclasses import replace

import pytest

from evalpool.tasks import (
    ChoicePrompt,
    Manner,
    TaskError,
    TaskFile,
    WrittenPrompt,
    row_of,
    task_prompts,
)
from evalpool.tasks.yaml_file import Function
from tests.evalpool.tasks.lm_eval_files import PROMPTS, SYSTEM_PROMPT, WRITTEN, rows, task

# Without what an answer begins with.
CHATS = [case for case in WRITTEN if "llama" not in case and "own_choices" not in case]


def with_shots(file: TaskFile, number: int) -> TaskFile:
    return replace(file, shots=replace(file.shots, number=number))


def asked(prompt: ChoicePrompt) -> list[list[str]]:
    """Pairs of a context and its continuation, as the harness asks them."""
    contexts = prompt.prompts
    if len(contexts) == 1:
        contexts *= len(prompt.continuations)
    return [list(pair) for pair in zip(contexts, prompt.continuations, strict=True)]


def chosen(file: TaskFile, name: str) -> list[ChoicePrompt]:
    prompts = list(task_prompts(file, rows(name)))
    return [prompt for prompt in prompts if isinstance(prompt, ChoicePrompt)]


def written(case: str, manner: Manner) -> list[WrittenPrompt]:
    name, _, shots = case.partition("/")
    prompts = list(task_prompts(with_shots(task(name), int(shots)), rows(name), manner))
    return [prompt for prompt in prompts if isinstance(prompt, WrittenPrompt)]


def conversation(prompt: WrittenPrompt) -> list[dict[str, str]]:
    system = [{"role": "system", "content": prompt.system}] if prompt.system else []
    return [*system, {"role": "user", "content": prompt.prompt}]


@pytest.mark.parametrize("case", sorted(PROMPTS))
def test_a_task_asks_what_the_harness_asks(case: str) -> None:
    name, _, shots = case.partition("/")
    made = chosen(with_shots(task(name), int(shots)), name)
    assert [asked(prompt) for prompt in made] == [each["requests"] for each in PROMPTS[case]]
    assert [list(prompt.choices) for prompt in made] == [each["choices"] for each in PROMPTS[case]]
    assert [prompt.answer for prompt in made] == [each["answer"] for each in PROMPTS[case]]


@pytest.mark.parametrize("case", sorted(WRITTEN))
def test_a_task_that_is_answered_freely_asks_what_the_harness_asks(case: str) -> None:
    made = written(case, Manner())
    assert [prompt.prompt for prompt in made] == [each["plain"] for each in WRITTEN[case]]
    assert [prompt.system for prompt in made] == [""] * len(made)
    right = [each["expected"] for each in WRITTEN[case]]
    assert [list(prompt.expected) for prompt in made] == right


@pytest.mark.parametrize("case", sorted(WRITTEN))
def test_models_write_as_the_harness_has_them_write(case: str) -> None:
    generation = task(case.partition("/")[0]).generation
    assert generation is not None
    for each in WRITTEN[case]:
        kwargs = each["kwargs"]
        assert list(generation.stop) == kwargs["until"]
        assert generation.max_tokens == kwargs.get("max_gen_toks", 256)
        assert float(generation.temperature) == kwargs.get("temperature", 0)


@pytest.mark.parametrize("case", sorted(WRITTEN))
def test_a_system_prompt_goes_before_the_description(case: str) -> None:
    made = written(case, Manner(system_prompt=SYSTEM_PROMPT))
    assert [prompt.prompt for prompt in made] == [each["system"] for each in WRITTEN[case]]


@pytest.mark.parametrize("way", ["chat", "chat_system"])
@pytest.mark.parametrize("case", sorted(CHATS))
def test_a_conversation_is_the_one_that_the_harness_gives_a_chat_template(
    case: str, way: str
) -> None:
    made = written(case, Manner(chat=True, system_prompt=SYSTEM_PROMPT * (way == "chat_system")))
    assert [conversation(prompt) for prompt in made] == [each[way] for each in WRITTEN[case]]


def test_examples_are_processed_by_their_own_function() -> None:
    name = "global_mmlu_full_de_anatomy"
    file = with_shots(task(name), 2)
    assert isinstance(file.shots.process, Function)
    other = replace(file.shots.process, name="utils.process_virology")
    given = rows(name)
    (first, *_) = task_prompts(replace(file, shots=replace(file.shots, process=other)), given)
    assert isinstance(first, ChoicePrompt)
    examples = [row["question"].strip() for row in given["dev"] if row["subject"] == "virology"]
    assert [line for line in first.prompts[0].splitlines() if "?" in line][:-1] == examples[:2]


def test_choices_and_begun_replies_are_no_conversation() -> None:
    with pytest.raises(TaskError, match="output_type: the choices of multiple_choice continue"):
        task_prompts(task("piqa"), rows("piqa"), Manner(chat=True))
    name = "mmlu_llama_anatomy"
    with pytest.raises(TaskError, match="gen_prefix: a reply cannot be begun in a conversation"):
        task_prompts(task(name), rows(name), Manner(chat=True))


def test_the_choices_that_a_filter_looks_for_are_the_rows() -> None:
    name = "mmlu_flan_n_shot_generative_anatomy"
    made = written(f"{name}/0", Manner())
    assert made[0].choices == ("The skull", "The femur", "The ulna", "The sternum")
    given = rows(name)
    del given["test"][1]["choices"]
    with pytest.raises(TaskError, match=r"test, row 2: .*choices"):
        list(task_prompts(task(name), given))
    assert written("gsm8k/0", Manner())[0].choices == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answer": {"aliases": []}}, r"row 2: doc_to_target: \[\] is neither a text nor a list"),
        ({"answer": {"aliases": [1]}}, r"row 2: doc_to_target: \[1\] is neither a text nor"),
        ({"answer": {}}, "row 2: doc_to_target: the template fails: .*'aliases'"),
    ],
)
def test_a_row_without_an_expected_reply_is_named(changes: dict[str, object], message: str) -> None:
    given = rows("triviaqa")
    given["validation"][1] |= changes
    with pytest.raises(TaskError, match=f"validation, {message}"):
        list(task_prompts(task("triviaqa"), given))


@pytest.mark.parametrize(
    ("split", "changes", "message"),
    [
        ("validation", {"label": "4"}, r"validation, row 2: doc_to_target: 3 is no place among 3"),
        (
            "validation",
            {"label": "one"},
            r"validation, row 2: doc_to_target: -1 is no|row 2: .*'-1'",
        ),
        ("validation", {"answerB": None}, r"validation, row 2: doc_to_choice: .* no list of texts"),
    ],
)
def test_a_row_that_cannot_be_asked_is_named(
    split: str, changes: dict[str, object], message: str
) -> None:
    given = rows("social_iqa")
    given[split][1] |= changes
    with pytest.raises(TaskError, match=message):
        list(task_prompts(task("social_iqa"), given))


def test_a_column_that_is_missing_is_named() -> None:
    given = rows("social_iqa")
    del given["validation"][0]["context"]
    with pytest.raises(TaskError, match=r"row 1: doc_to_text: .*'context' is undefined"):
        list(task_prompts(task("social_iqa"), given))


def test_a_split_without_rows_is_named() -> None:
    with pytest.raises(TaskError, match="validation: there are no rows of this split"):
        list(task_prompts(task("social_iqa"), {"train": []}))


@pytest.mark.parametrize("number", [7, 8])
def test_too_many_examples_are_refused(number: int) -> None:
    with pytest.raises(TaskError, match="num_fewshot: "):
        list(task_prompts(with_shots(task("social_iqa"), number), rows("social_iqa")))


def test_a_row_holds_the_delimiter_at_the_end_of_its_prompt() -> None:
    first = next(task_prompts(task("social_iqa"), rows("social_iqa")))
    assert row_of(first) == {
        "prompt": "Q: Ada gave Ben her coat because it rained. How would Ben feel?\nA: ",
        "choices": ["thankful", "angry at Ada", "hungry"],
        "answer_index": 0,
    }


def test_choices_that_are_prompts_make_a_row_with_their_ending() -> None:
    first = next(task_prompts(task("winogrande"), rows("winogrande")))
    assert row_of(first) == {
        "choices": [
            "Sarah was better than Maria at task 7 so Sarah",
            "Sarah was better than Maria at task 7 so Maria",
        ],
        "ending": " always got the easier cases.",
        "answer_index": 1,
    }


def test_choices_that_are_prompts_are_not_normalised() -> None:
    with pytest.raises(TaskError, match="metric_list: acc_norm says nothing"):
        list(task_prompts(replace(task("winogrande"), metric="acc_norm"), rows("winogrande")))
