"""How a `generate_until` task has models write, and how their replies are compared.

Agrees with `lm_eval/models/utils.py` (`normalize_gen_kwargs`), `lm_eval/filters` and
`exact_match` of `lm_eval/api/metrics.py`, release 0.4.13. The filters run where the service is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from evalpool.tasks.errors import TaskError
from evalpool.tasks.expressions import without_look_around
from evalpool.tasks.fields import Fields, shown

EXACT_MATCH = "exact_match"
MAX_TOKENS = 4096
"""Tokens of a reply at most, as the service has it."""

_TOKENS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
_DEFAULT_TOKENS = 256
_FALLBACK = "[invalid]"
_EVERYTHING = "(?s).*"
_PATTERN = r"#### (\-?[0-9\.\,]+)"


@dataclass(frozen=True, slots=True)
class RegexStep:
    """Takes what an expression finds.

    Attributes:
        pattern: In RE2's syntax.
        group_select: Which find, from 0, or from the last, -1.
        fallback: What stands where there is none.
    """

    pattern: str
    group_select: int = 0
    fallback: str = _FALLBACK


@dataclass(frozen=True, slots=True)
class ChoiceStep(RegexStep):
    """Takes the choice that a reply means, by an expression, or by the choices' texts.

    Attributes:
        ignore_case: Letters' case counts for nothing.
        ignore_punctuation: Punctuation counts for nothing.
        regexes_to_ignore: What these find counts for nothing.
    """

    ignore_case: bool = False
    ignore_punctuation: bool = False
    regexes_to_ignore: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A way from a reply to what is compared.

    Attributes:
        name: Such as "strict-match".
        steps: In order; none: the reply as it is.
    """

    name: str
    steps: tuple[RegexStep, ...] = ()


@dataclass(frozen=True, slots=True)
class Comparison:
    """What counts for nothing where a reply is compared with what is expected.

    Attributes:
        ignore_case: Letters' case.
        ignore_punctuation: Punctuation.
        ignore_numbers: Digits.
        regexes_to_ignore: What these find.
    """

    ignore_case: bool = False
    ignore_punctuation: bool = False
    ignore_numbers: bool = False
    regexes_to_ignore: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Generation:
    """How models write, and how their replies are compared.

    Attributes:
        max_tokens: Tokens at most.
        stop: The reply ends before any of these.
        temperature: A decimal number; "0" takes the likeliest token.
        pipelines: The first one decides.
        comparison: Of what a pipeline took with what is expected.
    """

    max_tokens: int
    stop: tuple[str, ...]
    temperature: str
    pipelines: tuple[Pipeline, ...]
    comparison: Comparison

    @property
    def needs_choices(self) -> bool:
        """Whether a filter looks for the row's choices."""
        steps = (step for pipeline in self.pipelines for step in pipeline.steps)
        return any(isinstance(step, ChoiceStep) for step in steps)


def read_generation(fields: Fields, delimiter: str, metrics: Any) -> Generation:
    """Read `generation_kwargs`, `filter_list` and a `metric_list`.

    Args:
        fields: The file's.
        delimiter: Ends a reply where the file names nothing.
        metrics: What is left of its `metric_list`.

    Raises:
        TaskError: The file asks for what is not done here.
    """
    kwargs = Fields(fields.mapping("generation_kwargs"), "generation_kwargs")
    generation = Generation(
        max_tokens=_max_tokens(kwargs),
        stop=_stop(kwargs, delimiter),
        temperature=_temperature(kwargs),
        pipelines=_pipelines(fields.get("filter_list")),
        comparison=_comparison(metrics),
    )
    kwargs.refuse_others({"num_beams": (1,), "top_p": (1,)}, frozenset())
    return generation


def temperature_of(value: object, field: str) -> str:
    """A temperature as the service takes it.

    Raises:
        TaskError: It is no number from 0 to 2 of at most three places.
    """
    text = str(value)
    if isinstance(value, bool) or not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,20})?", text):
        raise TaskError(f"{field}: {shown(value)} is no temperature; give a number from 0 to 2")
    number = Decimal(text)
    if number > 2 or number != round(number, 3):
        raise TaskError(
            f"{field}: {text} is no temperature here; give a number from 0 to 2, with at most 3 "
            "digits after the point"
        )
    return f"{number.normalize():f}"


def _max_tokens(kwargs: Fields) -> int:
    given = [name for name in _TOKENS if kwargs.get(name) is not None]
    return kwargs.integer(given[0], _DEFAULT_TOKENS, at_least=1) if given else _DEFAULT_TOKENS


def _stop(kwargs: Fields, delimiter: str) -> tuple[str, ...]:
    if "until" not in kwargs.values:
        return (delimiter,) if delimiter else ()
    until = kwargs.get("until")
    if until is None or until == []:
        return ()
    stop = (until,) if isinstance(until, str) else kwargs.texts("until")
    return tuple(dict.fromkeys(text for text in stop if text))


def _temperature(kwargs: Fields) -> str:
    sampled = kwargs.get("do_sample")
    given = kwargs.get("temperature")
    if sampled is not None and not isinstance(sampled, bool):
        raise TaskError(f"generation_kwargs.do_sample: {shown(sampled)} is neither true nor false")
    temperature = temperature_of(0 if given is None else given, "generation_kwargs.temperature")
    return "0" if sampled is False else temperature


def _pipelines(listed: Any) -> tuple[Pipeline, ...]:
    if listed is None:
        return (Pipeline("none"),)
    if not isinstance(listed, list) or not listed or not all(map(_is_mapping, listed)):
        raise TaskError("filter_list: it is no list of filters; give each a name and a filter")
    return tuple(_pipeline(Fields(each, f"filter_list[{i}]")) for i, each in enumerate(listed))


def _pipeline(fields: Fields) -> Pipeline:
    name = fields.text("name")
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name):
        raise TaskError(
            f"{fields.name('name')}: {shown(name)} will not do; give 1 to 64 of A-Z, a-z, 0-9, ._-"
        )
    listed = fields.get("filter")
    fields.refuse_others({}, frozenset())
    if not isinstance(listed, list) or not listed or not all(map(_is_mapping, listed)):
        raise TaskError(f"{fields.name('filter')}: it is no list of functions")
    where = f"filter_list {name}"
    steps = []
    for place, each in enumerate(listed):
        step = Fields(each, where)
        function = step.get("function")
        last = place == len(listed) - 1
        if function == "take_first":
            step.refuse_others({}, frozenset())
            if not last:
                raise TaskError(f"{where}: take_first is not its last function; put it there")
            continue
        reader = _STEPS.get(function) if isinstance(function, str) else None
        if reader is None:
            raise TaskError(
                f"{where}: {shown(function)} is not done here; use {', '.join(_STEPS)}, take_first"
            )
        steps.append(reader(step))
        step.refuse_others({}, frozenset())
        if last:
            raise TaskError(f"{where}: it has no take_first; put it last")
    return Pipeline(name, tuple(steps))


def _regex(fields: Fields) -> RegexStep:
    select = fields.integer("group_select", 0)
    field = fields.name("regex_pattern")
    pattern = without_look_around(fields.text("regex_pattern", _PATTERN), select, field)
    return RegexStep(pattern, select, fields.text("fallback", _FALLBACK))


def _by_choices(fields: Fields) -> ChoiceStep:
    found = _regex(fields)
    return ChoiceStep(
        found.pattern,
        found.group_select,
        found.fallback,
        fields.truth("ignore_case"),
        fields.truth("ignore_punctuation"),
        _ignored(fields),
    )


def _without_white_space(fields: Fields) -> RegexStep:
    # Of what an expression finds, white space at its ends is taken away.
    return RegexStep(_EVERYTHING)


_STEPS = {
    "regex": _regex,
    "multi_choice_regex": _by_choices,
    "remove_whitespace": _without_white_space,
}


def _comparison(listed: Any) -> Comparison:
    if listed is None:
        return Comparison()
    metrics = metrics_of(listed, (EXACT_MATCH,))
    if len(metrics) != 1:
        raise TaskError(f"metric_list: {EXACT_MATCH} is in it {len(metrics)} times; keep one")
    (metric,) = metrics
    comparison = Comparison(
        metric.truth("ignore_case"),
        metric.truth("ignore_punctuation"),
        metric.truth("ignore_numbers"),
        _ignored(metric),
    )
    # What Hugging Face's evaluate has under this name is where lm-evaluation-harness's comes from.
    metric.refuse_others({"hf_evaluate": (None, True, False)}, frozenset())
    return comparison


def metrics_of(listed: Any, known: Sequence[str]) -> list[Fields]:
    """The metrics of a `metric_list`, each a mean of which more is better.

    Args:
        listed: The field's value.
        known: Those that are done.

    Raises:
        TaskError: It is no list of metrics, or one is not done, or is aggregated otherwise.
    """
    if not isinstance(listed, list) or not all(map(_is_mapping, listed)):
        raise TaskError("metric_list: it is no list of metrics")
    metrics = []
    for each in listed:
        name = each.get("metric")
        if name not in known:
            raise TaskError(
                f"metric_list: {shown(name)} is not done here; use {', '.join(known)}, and leave "
                "out the others"
            )
        metric = Fields(each, f"metric_list {name}")
        metric.get("metric")
        aggregation = metric.get("aggregation")
        if aggregation not in (None, "mean"):
            raise TaskError(
                f"{metric.name('aggregation')}: {shown(aggregation)} is not done here; use mean"
            )
        if metric.get("higher_is_better") not in (None, True):
            raise TaskError(f"{metric.name('higher_is_better')}: it is true here; leave it out")
        metrics.append(metric)
    return metrics


def _ignored(fields: Fields) -> tuple[str, ...]:
    value = fields.get("regexes_to_ignore")
    name = fields.name("regexes_to_ignore")
    if isinstance(value, str) and len(value) > 1:
        raise TaskError(
            f"{name}: {shown(value)} is a text, which lm-evaluation-harness takes letter by "
            "letter; write a list"
        )
    patterns = (value,) if isinstance(value, str) else fields.texts("regexes_to_ignore")
    # All finds are taken away, so that none may be consumed for another.
    return tuple(without_look_around(pattern, -1, name) for pattern in patterns if pattern)


def _is_mapping(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(name, str) for name in value)
