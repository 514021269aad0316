"""The kinds of dataset: those built in, and those that other distributions add.

A distribution adds a kind by an entry point of the group `evalpool.datasets` that names a `Kind`,
or a function or class without arguments that gives one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, entry_points

from evalpool_dataset.digest import version_digest
from evalpool_dataset.parts.base import Parts
from evalpool_dataset.parts.calculator import ShareOfMatches, ShareOfRightAnswers
from evalpool_dataset.parts.free_rows import GenerationRows, OpenEndedRows
from evalpool_dataset.parts.info import KindInfo
from evalpool_dataset.parts.parameters import Parameters
from evalpool_dataset.parts.prompt import (
    OPEN_SYSTEM_PROMPT,
    ChoicePrompt,
    ContinuedPrompt,
    EndedPrompts,
    OpenPrompt,
    WrittenPrompt,
)
from evalpool_dataset.parts.retriever import FilteredReply, LetterRetriever
from evalpool_dataset.parts.rows import ContinuationRows, EndingRows, MultipleChoiceRows, SiqaRows
from evalpool_dataset.parts.rules import Evaluator, EvaluatorSpec
from evalpool_dataset.question import Question
from evalpool_runtime.start import CannotStart

ENTRY_POINT_GROUP = "evalpool.datasets"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of dataset.

    Attributes:
        name: As it is named in CreateDataset.
        evaluators: Those that it can be used with.
        defaults: Its parameters where the owner chooses none.
        build: Gives the six parts for an owner's parameters.
    """

    name: str
    evaluators: frozenset[Evaluator]
    defaults: Parameters
    build: Callable[[Parameters], Parts]

    def parts(self, parameters: Parameters) -> Parts:
        """The six parts.

        Raises:
            ValueError: The kind cannot be used with the evaluator.
        """
        if parameters.evaluator not in self.evaluators:
            usable = " or ".join(sorted(self.evaluators))
            raise ValueError(
                f"{self.name} cannot be used with {parameters.evaluator}; use {usable}"
            )
        return self.build(parameters)

    def version(self, parameters: Parameters, questions: Iterable[Question]) -> str:
        """The digest that names the version of these questions; see `digest.version_digest`."""
        return version_digest(
            kind=self.name,
            parts=self.parts(parameters).specs(),
            parameters=parameters.spec(),
            questions=questions,
        )


def _siqa(parameters: Parameters) -> Parts:
    return Parts(
        info=KindInfo(
            "siqa",
            "Three-way questions about social situations, in the form of Social IQa (Sap et al., "
            "2019).",
        ),
        loader=SiqaRows(),
        prompt=ChoicePrompt(parameters.system_prompt),
        retriever=LetterRetriever(),
        calculator=ShareOfRightAnswers(),
        evaluator=EvaluatorSpec(parameters.evaluator, parameters.metric, reply=parameters.reply),
    )


def _multiple_choice(parameters: Parameters) -> Parts:
    return replace(
        _siqa(parameters),
        info=KindInfo("multiple_choice", "Questions with 2 to 26 choices, one of which is right."),
        loader=MultipleChoiceRows(),
    )


def _continuation(parameters: Parameters) -> Parts:
    return replace(
        _siqa(parameters),
        info=KindInfo(
            "continuation",
            "Prompts that are written out, each with 2 to 26 texts that may continue it, one of "
            "which is right.",
        ),
        loader=ContinuationRows(),
        prompt=ContinuedPrompt(),
    )


def _ending(parameters: Parameters) -> Parts:
    return replace(
        _siqa(parameters),
        info=KindInfo(
            "ending",
            "Texts that are written out, each with 2 to 26 beginnings, one of which is right.",
        ),
        loader=EndingRows(),
        prompt=EndedPrompts(),
    )


def _generation(parameters: Parameters) -> Parts:
    return Parts(
        info=KindInfo(
            "generation",
            "Prompts that are written out, each with the replies that are right.",
        ),
        loader=GenerationRows(),
        prompt=WrittenPrompt(parameters.system_prompt),
        retriever=FilteredReply(parameters.filters),
        calculator=ShareOfMatches(parameters.exact_match),
        evaluator=EvaluatorSpec(parameters.evaluator, reply=parameters.reply),
    )


def _open_ended(parameters: Parameters) -> Parts:
    return Parts(
        info=KindInfo(
            "open_ended",
            "Questions that are answered freely, each with the response that is expected, by which "
            "a judge grades from 0 to 10.",
        ),
        loader=OpenEndedRows(),
        prompt=OpenPrompt(parameters.system_prompt),
        retriever=FilteredReply(),
        calculator=ShareOfMatches(),
        evaluator=EvaluatorSpec(
            parameters.evaluator,
            reply=parameters.reply,
            judge=parameters.judge,
            retrieval=parameters.retrieval,
        ),
    )


_CHOICE_EVALUATORS = frozenset({Evaluator.LOGLIKELIHOOD, Evaluator.LETTER})

SIQA = Kind("siqa", _CHOICE_EVALUATORS, Parameters(), _siqa)
MULTIPLE_CHOICE = Kind("multiple_choice", _CHOICE_EVALUATORS, Parameters(), _multiple_choice)
CONTINUATION = Kind(
    "continuation", frozenset({Evaluator.LOGLIKELIHOOD}), Parameters(), _continuation
)
ENDING = Kind("ending", frozenset({Evaluator.LOGLIKELIHOOD}), Parameters(), _ending)
GENERATION = Kind(
    "generation",
    frozenset({Evaluator.EXACT_MATCH}),
    Parameters(Evaluator.EXACT_MATCH, system_prompt=""),
    _generation,
)
OPEN_ENDED = Kind(
    "open_ended",
    frozenset({Evaluator.JUDGE}),
    Parameters(Evaluator.JUDGE, system_prompt=OPEN_SYSTEM_PROMPT),
    _open_ended,
)
_BUILT_IN = (SIQA, MULTIPLE_CHOICE, CONTINUATION, ENDING, GENERATION, OPEN_ENDED)


class BrokenKind(CannotStart):
    """A kind that another distribution adds cannot be used."""


def installed_kinds(added: Iterable[EntryPoint] | None = None) -> Mapping[str, Kind]:
    """Every kind, by name: those built in, and those of the entry points.

    Args:
        added: The entry points. Default: those installed, of the group `evalpool.datasets`.

    Raises:
        BrokenKind: An entry point cannot be loaded, gives no `Kind`, or takes a name that is taken.
    """
    kinds = {kind.name: kind for kind in _BUILT_IN}
    for point in entry_points(group=ENTRY_POINT_GROUP) if added is None else added:
        kind = _load(point)
        if kind.name in kinds:
            raise BrokenKind(
                f"the entry point {point.name} adds the kind {kind.name}, which is taken"
            )
        kinds[kind.name] = kind
    return kinds


def _load(point: EntryPoint) -> Kind:
    try:
        loaded = point.load()
        kind = loaded if isinstance(loaded, Kind) else loaded()
    except Exception as error:
        raise BrokenKind(f"the entry point {point.name} cannot be loaded: {error}") from error
    if not isinstance(kind, Kind):
        raise BrokenKind(f"the entry point {point.name} gives {type(kind).__name__}, not a Kind")
    return kind
