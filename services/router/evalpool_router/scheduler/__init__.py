"""The scheduler: which work goes to which worker, and when.

Pure: no input or output, no tasks, no clock of its own. Its owner tells it what happened, with the
time in seconds, and carries out the effects that come back. One caller at a time, so that whatever
gates a decision is read and changed in the same step.
"""

from evalpool_router.scheduler.roll import Departure, Rest
from evalpool_router.scheduler.rules import Rules
from evalpool_router.scheduler.scheduler import Scheduler
from evalpool_router.scheduler.tally import Totals
from evalpool_router.scheduler.throughput import Rates
from evalpool_router.scheduler.views import ModelView, WorkerState, WorkerView
from evalpool_router.scheduler.work import (
    Dispatch,
    Effect,
    End,
    FailQuestions,
    Kind,
    Recall,
    Registration,
    Request,
)

__all__ = [
    "Departure",
    "Dispatch",
    "Effect",
    "End",
    "FailQuestions",
    "Kind",
    "ModelView",
    "Rates",
    "Recall",
    "Registration",
    "Request",
    "Rest",
    "Rules",
    "Scheduler",
    "Totals",
    "WorkerState",
    "WorkerView",
]
