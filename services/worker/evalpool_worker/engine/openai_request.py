"""What an OpenAI-compatible server is asked, and what it can't be asked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

from .base import ChatMessage, SamplingParameters
from .errors import InvalidParametersError

Dialect = Literal["openai", "llama_cpp", "vllm"]

MOST_STOPS = 4
"""Stop texts that a server takes; further ones are looked for here."""

# Beyond OpenAI's own parameters, and what each is called there.
_EXTENSIONS: dict[Dialect, dict[str, str]] = {
    "openai": {},
    "llama_cpp": {
        "top_k": "top_k",
        "min_p": "min_p",
        "repeat_penalty": "repeat_penalty",
        "penalty_last_n": "repeat_last_n",
        "grammar": "grammar",
    },
    "vllm": {"top_k": "top_k", "min_p": "min_p", "grammar": "structured_outputs"},
}
_ROOT = re.compile(r"^\s*root\s*::=", re.MULTILINE)
_OFF: dict[str, int | float | str] = {
    "top_k": 0,
    "min_p": 0.0,
    "repeat_penalty": 1.0,
    "grammar": "",
}


def takes_grammars(dialect: Dialect) -> bool:
    """Whether a server can be told a grammar, as judging needs."""
    return "grammar" in _EXTENSIONS[dialect]


def ask(
    prompt: str | Sequence[ChatMessage],
    parameters: SamplingParameters,
    *,
    model: str,
    dialect: Dialect,
) -> tuple[str, dict[str, Any]]:
    """The path, below the server's URL, and the body of a request.

    Args:
        prompt: A text for `completions`, or messages for `chat/completions`.
        parameters: Already validated.
        model: The model's name on that server.
        dialect: What the server takes beside OpenAI's own parameters.

    Raises:
        InvalidParametersError: The server has nothing that a parameter can be mapped to.
    """
    body: dict[str, Any] = {
        "model": model,
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": parameters.max_tokens,
        "temperature": parameters.temperature,
        "top_p": parameters.top_p,
        "seed": parameters.seed,
        "frequency_penalty": parameters.frequency_penalty,
        "presence_penalty": parameters.presence_penalty,
        **_extensions(parameters, dialect),
    }
    if parameters.stop:
        body["stop"] = list(parameters.stop[:MOST_STOPS])
    if isinstance(prompt, str):
        if not prompt:
            raise InvalidParametersError("prompt", "prompt must not be empty for this model.")
        return "completions", body | {"prompt": prompt}
    if not prompt:
        raise InvalidParametersError("messages", "messages must hold at least one message.")
    messages = [{"role": message.role, "content": message.content} for message in prompt]
    return "chat/completions", body | {"messages": messages}


def _extensions(parameters: SamplingParameters, dialect: Dialect) -> dict[str, Any]:
    if parameters.logprobs is not None:
        raise InvalidParametersError(
            "logprobs", "logprobs can't be had of this worker's server; leave it out."
        )
    if parameters.grammar and not _ROOT.search(parameters.grammar):
        # Some servers do not survive such a grammar.
        raise InvalidParametersError("grammar", "grammar must have a rule named root.")
    names = _EXTENSIONS[dialect]
    for field, off in _OFF.items():
        # The likeliest token is within any of them.
        greedy = parameters.temperature == 0 and field in ("top_k", "min_p")
        if field not in names and not greedy and getattr(parameters, field) != off:
            raise InvalidParametersError(
                field, f"{field} is not known to this worker's server; give {off or repr('')}."
            )
    values = {
        name: getattr(parameters, field)
        for field, name in names.items()
        if field != "grammar" or parameters.grammar
    }
    if "structured_outputs" in values:
        values["structured_outputs"] = {"grammar": parameters.grammar}
    return values
