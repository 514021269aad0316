"""The six parts of a dataset, and the kinds that are put together from them."""

from evalpool_dataset.parts.base import (
    Continuations,
    Conversation,
    Evaluator,
    EvaluatorSpec,
    Info,
    Loader,
    Parts,
    PromptTemplate,
    ResultRetriever,
    ScoreCalculator,
)
from evalpool_dataset.parts.calculator import ShareOfRightAnswers
from evalpool_dataset.parts.info import KindInfo
from evalpool_dataset.parts.kinds import (
    CONTINUATION,
    ENDING,
    MULTIPLE_CHOICE,
    SIQA,
    BrokenKind,
    Kind,
    Parameters,
    installed_kinds,
)
from evalpool_dataset.parts.prompt import ChoicePrompt
from evalpool_dataset.parts.retriever import LetterRetriever
from evalpool_dataset.parts.rows import MultipleChoiceRows

__all__ = [
    "CONTINUATION",
    "ENDING",
    "MULTIPLE_CHOICE",
    "SIQA",
    "BrokenKind",
    "ChoicePrompt",
    "Continuations",
    "Conversation",
    "Evaluator",
    "EvaluatorSpec",
    "Info",
    "Kind",
    "KindInfo",
    "LetterRetriever",
    "Loader",
    "MultipleChoiceRows",
    "Parameters",
    "Parts",
    "PromptTemplate",
    "ResultRetriever",
    "ScoreCalculator",
    "ShareOfRightAnswers",
    "installed_kinds",
]
