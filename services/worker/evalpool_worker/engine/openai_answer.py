"""What an OpenAI-compatible server answers: pieces of text, counts, refusals."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import (
    EngineBusyError,
    EngineError,
    InvalidParametersError,
    PromptTooLongError,
)

DONE = "[DONE]"
"""The data of the event that ends a stream."""

RETRY_SECONDS = 1.0
MOST_RETRY_SECONDS = 60.0
_MOST_CHARACTERS = 300
_TOO_LONG = ("context_length_exceeded", "exceed_context_size_error")
_PARAMETERS = frozenset(
    {
        *("max_tokens", "temperature", "top_p", "seed", "frequency_penalty", "presence_penalty"),
        *("stop", "top_k", "min_p", "repeat_penalty", "grammar", "prompt", "messages"),
    }
)


@dataclass(frozen=True, slots=True)
class Piece:
    """One event of a stream.

    Attributes:
        text: What it adds; may be empty, may end or begin with half of a surrogate pair.
        finish_reason: Why the text ended, in the server's word; None before its end.
        usage: Tokens of the prompt and of the text, where the event tells them.
    """

    text: str
    finish_reason: str | None
    usage: tuple[int, int] | None


def parse_piece(data: str) -> Piece:
    """Read an event of `completions` or `chat/completions`.

    Raises:
        EngineError: It is none, or tells of an error.
    """
    try:
        event = json.loads(data)
    except ValueError as error:
        raise EngineError("The server sent an event that is no JSON.") from error
    if not isinstance(event, dict):
        raise EngineError("The server sent an event that is no object.")
    if "error" in event or event.get("object") == "error":
        raise EngineError(f"The server failed: {_told(event).message}")
    choices = event.get("choices")
    if not isinstance(choices, list):
        raise EngineError("The server sent an event without choices.")
    text, reason = _choice(choices[0]) if choices else ("", None)
    return Piece(text, reason, _usage(event.get("usage")))


def refusal(status: int, headers: Mapping[str, str], body: bytes) -> EngineError:
    """What an answer with another status than 200 means."""
    try:
        told = _told(json.loads(body))
    except ValueError:
        told = _Told("", "", "")
    if status in (401, 403):
        # Its own words may repeat a part of the key.
        return EngineError(f"The server refuses this worker's API key (HTTP {status}).")
    if status == 429 and told.code == "insufficient_quota":
        return EngineError("The server's quota for this worker's API key is used up (HTTP 429).")
    if status in (429, 503):
        return EngineBusyError(
            f"The server is busy (HTTP {status}).", _retry_after(headers.get("retry-after", ""))
        )
    if status in (400, 413, 422):
        if told.code in _TOO_LONG:
            return PromptTooLongError(f"prompt was refused as too long: {told.message}")
        if told.parameter in _PARAMETERS:
            field = told.parameter
            return InvalidParametersError(
                field, f"{field} was refused by this worker's server: {told.message}"
            )
    return EngineError(f"The server answered HTTP {status}: {told.message or 'no reason given'}")


@dataclass(frozen=True, slots=True)
class _Told:
    message: str
    code: str
    parameter: str


def _told(answer: Any) -> _Told:
    error = answer.get("error", answer) if isinstance(answer, dict) else answer
    if not isinstance(error, dict):
        return _Told(_short(error), "", "")
    code = error.get("code") if isinstance(error.get("code"), str) else error.get("type")
    return _Told(_short(error.get("message")), str(code or ""), str(error.get("param") or ""))


def _short(message: object) -> str:
    return " ".join(message.split())[:_MOST_CHARACTERS] if isinstance(message, str) else ""


def _choice(choice: Any) -> tuple[str, str | None]:
    if isinstance(choice, dict):
        delta = choice.get("delta")
        content = delta.get("content") if isinstance(delta, dict) else choice.get("text")
        text = "" if content is None else content
        reason = choice.get("finish_reason")
        if isinstance(text, str) and (reason is None or isinstance(reason, str)):
            return text, reason
    raise EngineError("The server sent a choice that can't be read.")


def _usage(usage: Any) -> tuple[int, int] | None:
    if usage is None:
        return None
    if isinstance(usage, dict):
        prompt, text = usage.get("prompt_tokens"), usage.get("completion_tokens", 0)
        if type(prompt) is int and type(text) is int and min(prompt, text) >= 0:
            return prompt, text
    raise EngineError("The server sent a usage that can't be read.")


def _retry_after(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        # Nothing, or a date: soon, and the server tells it again.
        return RETRY_SECONDS
    return min(max(seconds, 0.0), MOST_RETRY_SECONDS) if math.isfinite(seconds) else RETRY_SECONDS
