"""The six parts of a dataset, and the kinds that are put together from them."""

from evalpool_dataset.parts.base import (
    Continuations,
    Conversation,
    Info,
    Loader,
    Parts,
    PromptTemplate,
    ResultRetriever,
    ScoreCalculator,
)
from evalpool_dataset.parts.calculator import (
    ShareOfMatches,
    ShareOfRightAnswers,
)
from evalpool_dataset.parts.free_rows import (
    GenerationRows,
    OpenEndedRows,
)
from evalpool_dataset.parts.info import (
    KindInfo,
)
from evalpool_dataset.parts.kinds import (
    CONTINUATION,
    ENDING,
    GENERATION,
    MULTIPLE_CHOICE,
    OPEN_ENDED,
    SIQA,
    BrokenKind,
    Kind,
    installed_kinds,
)
from evalpool_dataset.parts.parameters import (
    FewShot,
    Parameters,
)
from evalpool_dataset.parts.prompt import (
    ChoicePrompt,
    OpenPrompt,
    WrittenPrompt,
)
from evalpool_dataset.parts.retriever import (
    FilteredReply,
    LetterRetriever,
)
from evalpool_dataset.parts.rows import (
    MultipleChoiceRows,
)
from evalpool_dataset.parts.rules import (
    FULL_GRADE,
    WRITING,
    Evaluator,
    EvaluatorSpec,
    JudgeRules,
    PromptForm,
    ReplyRules,
    RetrievalRules,
)

__all__ = [
    "CONTINUATION",
    "ENDING",
    "FULL_GRADE",
    "GENERATION",
    "MULTIPLE_CHOICE",
    "OPEN_ENDED",
    "SIQA",
    "WRITING",
    "BrokenKind",
    "ChoicePrompt",
    "Continuations",
    "Conversation",
    "Evaluator",
    "EvaluatorSpec",
    "FewShot",
    "FilteredReply",
    "GenerationRows",
    "Info",
    "JudgeRules",
    "Kind",
    "KindInfo",
    "LetterRetriever",
    "Loader",
    "MultipleChoiceRows",
    "OpenEndedRows",
    "OpenPrompt",
    "Parameters",
    "Parts",
    "PromptForm",
    "PromptTemplate",
    "ReplyRules",
    "ResultRetriever",
    "RetrievalRules",
    "ScoreCalculator",
    "ShareOfMatches",
    "ShareOfRightAnswers",
    "WrittenPrompt",
    "installed_kinds",
]
