"""How a dataset's questions are asked and its answers marked: as options, and shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

from evalpool.cli.failure import Failure
from evalpool.dataset.v1 import dataset_pb2


class FormName(StrEnum):
    """How a question is put to a model that writes a reply."""

    PLAIN = "plain"
    CHAT = "chat"


class Ignored(StrEnum):
    """What counts for nothing where replies are compared."""

    CASE = "case"
    PUNCTUATION = "punctuation"
    NUMBERS = "numbers"


_FORMS = {
    FormName.PLAIN: dataset_pb2.PROMPT_FORM_PLAIN,
    FormName.CHAT: dataset_pb2.PROMPT_FORM_CHAT,
}


def reply_of(
    form: FormName | None,
    max_tokens: int | None,
    stop: Sequence[str],
    temperature: str,
    seed: int | None,
) -> dataset_pb2.Reply | None:
    """How models are to write; None where everything is left to the kind."""
    reply = dataset_pb2.Reply(
        form=_FORMS[form] if form else dataset_pb2.PROMPT_FORM_UNSPECIFIED,
        max_tokens=max_tokens or 0,
        stop=stop,
        temperature=temperature,
        seed=seed or 0,
    )
    return reply if reply.ByteSize() else None


def filters_of(named: Sequence[str]) -> list[dataset_pb2.FilterPipeline]:
    """Pipelines of one regular expression each, given as NAME=PATTERN.

    Raises:
        Failure: One is given otherwise.
    """
    pipelines = []
    for each in named:
        name, separator, pattern = each.partition("=")
        if not name or not separator or not pattern:
            raise Failure(f'--filter {each}: write NAME=PATTERN, as in "number=#### ([0-9]+)"')
        step = dataset_pb2.Filter(regex=dataset_pb2.RegexFilter(pattern=pattern))
        pipelines.append(dataset_pb2.FilterPipeline(name=name, steps=[step]))
    return pipelines


def exact_match_of(ignored: Sequence[Ignored]) -> dataset_pb2.ExactMatch | None:
    """What counts for nothing; None where everything counts."""
    if not ignored:
        return None
    return dataset_pb2.ExactMatch(
        ignore_case=Ignored.CASE in ignored,
        ignore_punctuation=Ignored.PUNCTUATION in ignored,
        ignore_numbers=Ignored.NUMBERS in ignored,
    )


def asking_fields(dataset: dataset_pb2.Dataset) -> Mapping[str, object]:
    """What a dataset says of that, by the names that people read; empty for nothing."""
    reply, judge, retrieval = dataset.reply, dataset.judge, dataset.retrieval
    shots = dataset.few_shot
    writes = dataset.HasField("reply")
    return {
        "form": dataset_pb2.PromptForm.Name(reply.form).removeprefix("PROMPT_FORM_").lower()
        if reply.form
        else "",
        "max tokens": reply.max_tokens or "",
        "stop": ", ".join(map(repr, reply.stop)),
        "temperature": reply.temperature if writes else "",
        "seed": reply.seed if writes else "",
        "filters": "; ".join(map(_pipeline_text, dataset.filters)),
        "ignored": _ignored_text(dataset.exact_match),
        "judge": judge.model,
        "judge's seed": judge.seed if dataset.HasField("judge") else "",
        "answered by": retrieval.model,
        "documents a question": retrieval.top_k or "",
        "examples": _shots_text(shots) if dataset.HasField("few_shot") else "",
    }


def _pipeline_text(pipeline: dataset_pb2.FilterPipeline) -> str:
    steps = " | ".join(map(_step_text, pipeline.steps)) or "as it is"
    return f"{pipeline.name}: {steps}"


def _step_text(step: dataset_pb2.Filter) -> str:
    kind = step.WhichOneof("step") or ""
    given = step.regex if kind == "regex" else step.multi_choice_regex
    which = f" [{given.group_select}]" if given.group_select else ""
    return f"{kind} {given.pattern}{which}"


def _ignored_text(ignored: dataset_pb2.ExactMatch) -> str:
    names = {
        Ignored.CASE: ignored.ignore_case,
        Ignored.PUNCTUATION: ignored.ignore_punctuation,
        Ignored.NUMBERS: ignored.ignore_numbers,
    }
    return ", ".join([*(name for name, does in names.items() if does), *ignored.regexes_to_ignore])


def _shots_text(shots: dataset_pb2.FewShot) -> str:
    drawn = f", drawn with seed {shots.seed}" if shots.seed else ""
    chosen = f" by {shots.sampler}" if shots.sampler else ""
    taken = f" of {shots.split}" if shots.split else ""
    return f"{shots.number}{taken}{chosen}{drawn}"
