"""About how many tokens a request takes, and how many it may take."""

from __future__ import annotations

from evalpool.inference.v1 import inference_pb2

DEFAULT_MAX_TOKENS = 256
"""Tokens of an answer whose request names no limit: a worker's setting, unless it is changed."""

BYTES_A_TOKEN = 4
"""A rule of thumb; what was really computed comes with the results."""


def infer_tokens(request: inference_pb2.InferRequest) -> int:
    """About how many tokens a request will take, prompt and answer."""
    written = len(request.prompt.encode()) + sum(
        len(message.content.encode()) for message in request.chat.messages
    )
    answer = request.sampling.max_tokens or DEFAULT_MAX_TOKENS
    return written // BYTES_A_TOKEN + max(answer, 1)


def question_tokens(question: inference_pb2.ChoiceQuestion) -> int:
    """About how many tokens a question takes; its prompt is computed once for all choices."""
    return most_question_tokens(question) // BYTES_A_TOKEN + len(question.choices)


def most_infer_tokens(request: inference_pb2.InferRequest) -> int:
    """Tokens that a request may take: every byte of what was written one, and the answer's."""
    written = len(request.prompt.encode()) + sum(
        len(message.content.encode()) for message in request.chat.messages
    )
    return written + (request.sampling.max_tokens or DEFAULT_MAX_TOKENS)


def most_question_tokens(question: inference_pb2.ChoiceQuestion) -> int:
    """Tokens that a question may take: every byte one."""
    texts = (question.prompt, *question.prompts, *question.choices)
    return sum(len(text.encode()) for text in texts)
