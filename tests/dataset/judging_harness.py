"""Open questions, and a herd that answers and grades them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.dataset.dataset_harness import MODEL, OTHER_MODEL, json_lines
from tests.dataset.router_double import RouterDouble

JUDGE = "c" * 64
ANSWERS = "d" * 64
QUESTIONS = json_lines(
    [
        {
            "question": "Where is the tower?",
            "expected_response": "In Paris.",
            "context": "A tower.",
        },
        {"question": "Who built it?", "expected_response": "Eiffel did."},
    ]
)


@asynccontextmanager
async def judging_herd() -> AsyncIterator[RouterDouble]:
    """A herd that repeats what it is asked, and grades the tower with 7 and the rest with 10."""
    async with RouterDouble.knowing(MODEL, OTHER_MODEL, JUDGE, ANSWERS) as made:
        made.own_models = (ANSWERS, JUDGE)
        made.reply = lambda turn: f"I say: {turn}"
        made.grade = lambda request: 7 if "tower" in request.question else 10
        yield made
