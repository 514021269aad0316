"""How a task has models write, and how their replies are compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from evalpool.tasks import (
    ChoiceStep,
    Comparison,
    Generation,
    Pipeline,
    RegexStep,
    TaskError,
    read_task,
    temperature_of,
)
from tests.evalpool.tasks.lm_eval_files import task

SOUND: dict[str, Any] = {
    "task": "mine",
    "dataset_path": "json",
    "test_split": "test",
    "doc_to_text": "question",
    "doc_to_target": "answer",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 8},
    "filter_list": [{"name": "number", "filter": [{"function": "take_first"}]}],
    "metric_list": [{"metric": "exact_match"}],
}


def read(folder: Path, **changes: Any) -> Generation:
    path = folder / "task.yaml"
    path.write_text(yaml.safe_dump(SOUND | changes))
    found = read_task(path).generation
    assert found is not None
    return found


def test_gsm8k_is_read() -> None:
    assert task("gsm8k").generation == Generation(
        max_tokens=256,
        stop=("Question:", "</s>", "<|im_end|>"),
        temperature="0",
        pipelines=(
            Pipeline("strict-match", (RegexStep(r"#### (\-?[0-9\.\,]+)"),)),
            Pipeline("flexible-extract", (RegexStep(r"(-?[$0-9.,]{2,})|(-?[0-9]+)", -1),)),
        ),
        comparison=Comparison(
            ignore_case=True, regexes_to_ignore=(",", "\\$", "(?s).*#### ", "\\.$")
        ),
    )


def test_filters_by_choices_and_white_space_are_read() -> None:
    found = task("mmlu_flan_n_shot_generative_anatomy").generation
    assert found is not None
    assert found.needs_choices
    assert found.pipelines == (
        Pipeline("strict-match"),
        Pipeline(
            "flexible-extract",
            (ChoiceStep(r"(\([A-Z]\))", ignore_case=True, ignore_punctuation=True),),
        ),
    )
    found = task("triviaqa").generation
    assert found is not None
    # Of what an expression finds, the ends' white space is taken away.
    assert found.pipelines == (Pipeline("remove_whitespace", (RegexStep("(?s).*"),)),)


@pytest.mark.parametrize(
    ("kwargs", "expected"),
    [
        (None, (("\n\n",), 256, "0")),
        ({"max_gen_toks": 9}, (("\n\n",), 9, "0")),
        ({"until": "x", "max_new_tokens": 7}, (("x",), 7, "0")),
        ({"until": [], "temperature": 0.70}, ((), 256, "0.7")),
        ({"until": ["a", "", "b", "a"], "temperature": 1.0}, (("a", "b"), 256, "1")),
        ({"until": None, "do_sample": False, "temperature": 0.8}, ((), 256, "0")),
        ({"until": None, "do_sample": True, "temperature": 0.8, "top_p": 1}, ((), 256, "0.8")),
    ],
)
def test_kwargs_mean_what_they_mean_to_the_harness(
    tmp_path: Path, kwargs: Any, expected: object
) -> None:
    found = read(tmp_path, generation_kwargs=kwargs)
    assert (found.stop, found.max_tokens, found.temperature) == expected


def pipeline(*functions: dict[str, Any], name: str = "n") -> dict[str, Any]:
    return {"filter_list": [{"name": name, "filter": list(functions)}]}


REGEX = {"function": "regex", "regex_pattern": "(a)"}
FIRST = {"function": "take_first"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"generation_kwargs": {"top_p": 0.9}}, "generation_kwargs.top_p: 0.9 is not done here"),
        ({"generation_kwargs": {"seed": 1}}, "generation_kwargs.seed: the field is unknown"),
        ({"generation_kwargs": {"until": [1]}}, "generation_kwargs.until: .* is no list of texts"),
        ({"generation_kwargs": {"max_gen_toks": 0}}, "generation_kwargs.max_gen_toks: 0 will not"),
        (
            {"generation_kwargs": {"do_sample": "no"}},
            "generation_kwargs.do_sample: 'no' is",
        ),
        ({"generation_kwargs": {"temperature": 3}}, "generation_kwargs.temperature: 3 is no temp"),
        ({"filter_list": []}, "filter_list: it is no list of filters"),
        (pipeline(FIRST, name="a b"), r"filter_list\[0\]\.name: 'a b' will not do"),
        (pipeline(REGEX), "filter_list n: it has no take_first; put it last"),
        (pipeline(FIRST, REGEX), "filter_list n: take_first is not its last function"),
        (pipeline({"function": "majority_vote"}, FIRST), "filter_list n: 'majority_vote' is not"),
        (pipeline({"function": "map"}, FIRST), "filter_list n: 'map' is not done here; use regex"),
        (pipeline({**REGEX, "clean": True}, FIRST), "filter_list n.clean: the field is unknown"),
        (
            pipeline({**REGEX, "regex_pattern": "(a"}, FIRST),
            "filter_list n.regex_pattern: .* is no",
        ),
        (
            pipeline({**REGEX, "regex_pattern": "(a)(?!b)"}, FIRST),
            r"filter_list n.regex_pattern: '\(a\)\(\?!b\)' has look-around",
        ),
        ({"metric_list": [{"metric": "bleu"}]}, "metric_list: 'bleu' is not done here; use exact"),
        ({"metric_list": [{"metric": "acc"}]}, "metric_list: 'acc' is not done here; use exact_ma"),
        ({"metric_list": [{"metric": "exact_match"}] * 2}, "exact_match is in it 2 times"),
        (
            {"metric_list": [{"metric": "exact_match", "ignore_case": 1}]},
            "metric_list exact_match.ignore_case: 1 is neither true nor false",
        ),
        (
            {"metric_list": [{"metric": "exact_match", "regexes_to_ignore": "ab"}]},
            "metric_list exact_match.regexes_to_ignore: 'ab' is a text",
        ),
        (
            {"metric_list": [{"metric": "exact_match", "regexes_to_ignore": ["a(?=b)"]}]},
            "metric_list exact_match.regexes_to_ignore: .* has look-around",
        ),
        (
            {"metric_list": [{"metric": "exact_match", "aggregation": "nanmean"}]},
            "metric_list exact_match.aggregation: 'nanmean' is not done here; use mean",
        ),
    ],
)
def test_what_is_not_done_is_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(TaskError, match=message):
        read(tmp_path, **changes)


@pytest.mark.parametrize(
    ("given", "text"), [(0, "0"), (0.0, "0"), ("1.50", "1.5"), (2, "2"), ("0.125", "0.125")]
)
def test_a_temperature_is_decimal(given: object, text: str) -> None:
    assert temperature_of(given, "f") == text


@pytest.mark.parametrize("given", [-1, 2.001, "0.1234", "nan", "1e-3", True, "", "９"])
def test_what_is_no_temperature_is_refused(given: object) -> None:
    with pytest.raises(TaskError, match=r"f: .* is no temperature"):
        temperature_of(given, "f")
