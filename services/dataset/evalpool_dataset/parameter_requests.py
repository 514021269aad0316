"""Reading what a dataset's owner chooses of its parts from a CreateDatasetRequest."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial

from evalpool.dataset.v1 import dataset_pb2
from evalpool.values import Fields, InvalidValue, parse_digest, parse_integer, parse_text
from evalpool_dataset.filters import (
    AS_IT_IS,
    FALLBACK,
    ExactMatch,
    Filter,
    MultiChoiceRegexFilter,
    Pipeline,
    RegexFilter,
    check_pattern,
)
from evalpool_dataset.parts import (
    WRITING,
    Evaluator,
    FewShot,
    JudgeRules,
    Kind,
    PromptForm,
    ReplyRules,
    RetrievalRules,
)

MAX_TOKENS = 4096
MAX_STOPS = 16
MAX_STOP_BYTES = 256
MAX_PIPELINES = 8
MAX_STEPS = 8
MAX_IGNORED = 16
MAX_SHOTS = 1000
DEFAULT_TOP_K = 4
MAX_TOP_K = 100

_FORMS = {
    dataset_pb2.PROMPT_FORM_UNSPECIFIED: None,
    dataset_pb2.PROMPT_FORM_PLAIN: PromptForm.PLAIN,
    dataset_pb2.PROMPT_FORM_CHAT: PromptForm.CHAT,
}
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TEMPERATURE = re.compile(r"[01](\.[0-9]{1,3})?|2(\.0{1,3})?")

_BELONGS_TO = {
    "reply": WRITING,
    "filters": {Evaluator.EXACT_MATCH},
    "exact_match": {Evaluator.EXACT_MATCH},
    "judge": {Evaluator.JUDGE},
    "retrieval": {Evaluator.JUDGE},
}
"""The evaluators that have a use for a field."""


def refuse_unused(fields: Fields, request: dataset_pb2.CreateDatasetRequest, kind: Kind) -> None:
    """Refuse what would be passed over in silence: fields that the kind has no use for."""
    given = {field.name for field, _ in request.ListFields()}
    for name, evaluators in _BELONGS_TO.items():
        if name in given and not kind.evaluators & evaluators:
            fields.refuse(
                name, f"datasets of the kind {kind.name} have no use for it; leave it out"
            )


def parse_reply(fields: Fields, reply: dataset_pb2.Reply) -> ReplyRules:
    """How models are to write."""
    if reply.form not in _FORMS:
        fields.refuse(
            "reply.form", f"there is none with the number {reply.form}; give PLAIN or CHAT"
        )
    if len(reply.stop) > MAX_STOPS:
        fields.refuse("reply.stop", f"there are {len(reply.stop)}; give at most {MAX_STOPS}")
    return ReplyRules(
        form=_FORMS.get(reply.form),
        max_tokens=fields.attempt(
            "reply.max_tokens",
            lambda: parse_integer(reply.max_tokens, at_least=1, at_most=MAX_TOKENS, default=0),
        )
        or None,
        stop=tuple(
            fields.parse(f"reply.stop[{place}]", _parse_stop, text)
            for place, text in enumerate(reply.stop[:MAX_STOPS])
        ),
        temperature=fields.parse("reply.temperature", _parse_temperature, reply.temperature),
        seed=reply.seed,
    )


def parse_filters(
    fields: Fields, pipelines: Sequence[dataset_pb2.FilterPipeline]
) -> tuple[Pipeline, ...]:
    """What is taken from a reply."""
    if not pipelines:
        return AS_IT_IS
    if len(pipelines) > MAX_PIPELINES:
        fields.refuse("filters", f"there are {len(pipelines)}; give at most {MAX_PIPELINES}")
    names = [pipeline.name for pipeline in pipelines]
    parsed = []
    for place, pipeline in enumerate(pipelines[:MAX_PIPELINES]):
        field = f"filters[{place}]"
        fields.parse(f"{field}.name", _parse_name, pipeline.name)
        if names.index(pipeline.name) < place:
            fields.refuse(f"{field}.name", "there is another one of this name; choose another")
        if len(pipeline.steps) > MAX_STEPS:
            fields.refuse(
                f"{field}.steps", f"there are {len(pipeline.steps)}; give at most {MAX_STEPS}"
            )
        steps = [
            _parse_step(fields, f"{field}.steps[{number}]", step)
            for number, step in enumerate(pipeline.steps[:MAX_STEPS])
        ]
        parsed.append(Pipeline(pipeline.name, tuple(filter(None, steps))))
    return tuple(parsed)


def parse_exact_match(fields: Fields, ignoring: dataset_pb2.ExactMatch) -> ExactMatch:
    """What counts for nothing where texts are compared."""
    return ExactMatch(
        ignore_case=ignoring.ignore_case,
        ignore_punctuation=ignoring.ignore_punctuation,
        ignore_numbers=ignoring.ignore_numbers,
        regexes_to_ignore=_patterns(
            fields, "exact_match.regexes_to_ignore", ignoring.regexes_to_ignore
        ),
    )


def parse_judge(fields: Fields, judge: dataset_pb2.Judge) -> JudgeRules:
    """What grades; its model is empty for the herd's judge."""
    model = fields.parse("judge.model", parse_digest, judge.model) if judge.model else ""
    return JudgeRules(model, judge.seed)


def parse_retrieval(fields: Fields, retrieval: dataset_pb2.Retrieval) -> RetrievalRules:
    """What answers with what a set yields; its model is empty for the herd's chat model."""
    model = retrieval.model
    if retrieval.embedder:
        fields.refuse("retrieval.embedder", "it is the embedding service's model; leave it empty")
    return RetrievalRules(
        fields.parse("retrieval.model", parse_digest, model) if model else "",
        fields.attempt(
            "retrieval.top_k",
            lambda: parse_integer(
                retrieval.top_k, at_least=1, at_most=MAX_TOP_K, default=DEFAULT_TOP_K
            ),
        ),
    )


def parse_few_shot(fields: Fields, few_shot: dataset_pb2.FewShot) -> FewShot:
    """The examples that stand before each question."""
    return FewShot(
        number=fields.attempt(
            "few_shot.number",
            lambda: parse_integer(few_shot.number, at_least=0, at_most=MAX_SHOTS),
        ),
        sampler=fields.parse("few_shot.sampler", partial(parse_text, at_most=64), few_shot.sampler),
        seed=few_shot.seed,
        split=fields.parse("few_shot.split", partial(parse_text, at_most=200), few_shot.split),
    )


def _parse_step(fields: Fields, field: str, step: dataset_pb2.Filter) -> Filter | None:
    kind = step.WhichOneof("step")
    if kind is None:
        fields.refuse(field, "it is no step; give regex or multi_choice_regex")
        return None
    given = step.regex if kind == "regex" else step.multi_choice_regex
    field = f"{field}.{kind}"
    pattern = fields.parse(f"{field}.pattern", check_pattern, given.pattern)
    select = fields.attempt(
        f"{field}.group_select",
        lambda: parse_integer(given.group_select, at_least=-1000, at_most=1000),
    )
    fallback = given.fallback if given.HasField("fallback") else FALLBACK
    fields.parse(f"{field}.fallback", partial(parse_text, at_most=256), fallback)
    if isinstance(given, dataset_pb2.RegexFilter):
        return RegexFilter(pattern, select, fallback)
    return MultiChoiceRegexFilter(
        pattern,
        select,
        fallback,
        given.ignore_case,
        given.ignore_punctuation,
        _patterns(fields, f"{field}.regexes_to_ignore", given.regexes_to_ignore),
    )


def _patterns(fields: Fields, field: str, patterns: Sequence[str]) -> tuple[str, ...]:
    if len(patterns) > MAX_IGNORED:
        fields.refuse(field, f"there are {len(patterns)}; give at most {MAX_IGNORED}")
    return tuple(
        fields.parse(f"{field}[{place}]", check_pattern, pattern)
        for place, pattern in enumerate(patterns[:MAX_IGNORED])
    )


def _parse_name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise InvalidValue(f"{text[:64]!r} is no name; give 1 to 64 letters, digits and ._-")
    return text


def _parse_stop(text: str) -> str:
    size = len(text.encode())
    if not 1 <= size <= MAX_STOP_BYTES:
        raise InvalidValue(f"it has {size} bytes; give 1 to {MAX_STOP_BYTES}")
    return text


def _parse_temperature(text: str) -> str:
    if not text:
        return "0"
    if not _TEMPERATURE.fullmatch(text):
        raise InvalidValue(
            f"{text[:20]!r} is no temperature; give a number from 0 to 2 with at most 3 digits "
            "after the point"
        )
    return text.rstrip("0").rstrip(".") if "." in text else text
