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

__all__ = [
    "CONTINUATION",
    "ENDING",
    "MULTIPLE_CHOICE",
    "SIQA",
    "BrokenKind",
    "Continuations",
    "Conversation",
    "Evaluator",
    "EvaluatorSpec",
    "Info",
    "Kind",
    "Loader",
    "Parameters",
    "Parts",
    "PromptTemplate",
    "ResultRetriever",
    "ScoreCalculator",
    "installed_kinds",
]
