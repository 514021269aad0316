"""What a dataset's owner has chosen of its parts, as the contract's messages."""

from __future__ import annotations

from evalpool.dataset.v1 import dataset_pb2
from evalpool_dataset.filters import AS_IT_IS, ExactMatch, Filter, Pipeline, RegexFilter
from evalpool_dataset.parts import WRITING, Parameters, PromptForm

_FORMS = {
    PromptForm.PLAIN: dataset_pb2.PROMPT_FORM_PLAIN,
    PromptForm.CHAT: dataset_pb2.PROMPT_FORM_CHAT,
}


def tell_parameters(message: dataset_pb2.Dataset, chosen: Parameters) -> None:
    """Fill in what was chosen, with the default evaluator's own values where nothing was."""
    if chosen.evaluator in WRITING or chosen.reply.document():
        rules = chosen.reply.under(chosen.evaluator)
        message.reply.CopyFrom(
            dataset_pb2.Reply(
                form=_FORMS[rules.form] if rules.form else dataset_pb2.PROMPT_FORM_UNSPECIFIED,
                max_tokens=rules.max_tokens or 0,
                stop=rules.stop,
                temperature=rules.temperature,
                seed=rules.seed,
            )
        )
    if chosen.filters != AS_IT_IS:
        message.filters.extend(map(_pipeline_message, chosen.filters))
    if chosen.exact_match != ExactMatch():
        ignoring = chosen.exact_match
        message.exact_match.CopyFrom(
            dataset_pb2.ExactMatch(
                ignore_case=ignoring.ignore_case,
                ignore_punctuation=ignoring.ignore_punctuation,
                ignore_numbers=ignoring.ignore_numbers,
                regexes_to_ignore=ignoring.regexes_to_ignore,
            )
        )
    if chosen.judge is not None:
        judge = dataset_pb2.Judge(model=chosen.judge.model, seed=chosen.judge.seed)
        message.judge.CopyFrom(judge)
    if chosen.retrieval is not None:
        message.retrieval.CopyFrom(
            dataset_pb2.Retrieval(
                model=chosen.retrieval.model,
                top_k=chosen.retrieval.top_k,
                embedder=chosen.retrieval.embedder,
            )
        )
    if chosen.few_shot is not None:
        message.few_shot.CopyFrom(
            dataset_pb2.FewShot(
                number=chosen.few_shot.number,
                sampler=chosen.few_shot.sampler,
                seed=chosen.few_shot.seed,
                split=chosen.few_shot.split,
            )
        )


def _pipeline_message(pipeline: Pipeline) -> dataset_pb2.FilterPipeline:
    return dataset_pb2.FilterPipeline(name=pipeline.name, steps=map(_step_message, pipeline.steps))


def _step_message(step: Filter) -> dataset_pb2.Filter:
    if isinstance(step, RegexFilter):
        return dataset_pb2.Filter(
            regex=dataset_pb2.RegexFilter(
                pattern=step.pattern, group_select=step.group_select, fallback=step.fallback
            )
        )
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
