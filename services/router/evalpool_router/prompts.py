"""What Chat and Evaluate ask a model. A change here changes grades: tell it in the CHANGELOG."""

from __future__ import annotations

from evalpool.inference.v1 import inference_pb2

CHAT_TOKENS = 40
"""Tokens of an answer to Chat unless the call says otherwise."""

CHAT_SYSTEM = "Answer the question in one short sentence."

JUDGE_SYSTEM = (
    "You grade answers. Compare the answer with the expected answer and give a whole number from "
    "0 to 10: 0 for an answer that is wrong or missing, 10 for one that says the same. Reply with "
    "the number only."
)

JUDGE_GRAMMAR = 'root ::= "10" | [0-9]'
"""GBNF of a grade: 0 to 10 and nothing else, so that a reply always parses."""

JUDGE_TOKENS = 4
"""Enough for "10" in any vocabulary, and the end of the turn."""

MOST_GRADE_TOKENS = 4 * (CHAT_TOKENS + JUDGE_TOKENS) + 2048
"""Tokens that a grade may take beside the caller's texts: own answer, verdict, instructions."""


def chat_question(question: str, context: str) -> inference_pb2.Chat:
    """The conversation that asks a question."""
    asked = f"Context: {context}\n\nQuestion: {question}" if context else question
    return _conversation(CHAT_SYSTEM, asked)


def judge_question(
    question: str, expected_response: str, context: str, response: str
) -> inference_pb2.Chat:
    """The conversation that asks for a grade."""
    parts = [
        f"Question: {question}",
        f"Expected answer: {expected_response}",
        f"Answer to grade: {response}",
        "Grade from 0 to 10:",
    ]
    if context:
        parts.insert(0, f"Context: {context}")
    return _conversation(JUDGE_SYSTEM, "\n\n".join(parts))


def parse_grade(reply: str) -> int | None:
    """The grade of a reply; None where it is none."""
    text = reply.strip()
    if text.isascii() and text.isdigit() and len(text) <= 2 and int(text) <= 10:
        return int(text)
    return None


def _conversation(system: str, user: str) -> inference_pb2.Chat:
    return inference_pb2.Chat(
        messages=[
            inference_pb2.ChatMessage(role="system", content=system),
            inference_pb2.ChatMessage(role="user", content=user),
        ]
    )
