"""An engine's errors reach the caller by the contract's fields and reasons."""

from __future__ import annotations

import pytest

from evalpool_runtime.errors import DomainError, Internal, InvalidRequest, Unavailable
from evalpool_worker.engine.base import SamplingParameters
from evalpool_worker.engine.errors import (
    EngineError,
    InvalidParametersError,
    NoModelLoadedError,
    PromptTooLongError,
    TooLittleMemoryError,
)
from evalpool_worker.refusals import as_domain_error


@pytest.mark.parametrize(
    ("error", "reason", "message"),
    [
        (
            InvalidParametersError("messages", "messages don't suit the template: no."),
            "INVALID_FIELD",
            "chat.messages: don't suit the template: no",
        ),
        (
            InvalidParametersError("template", "template can't render the messages: no."),
            "INVALID_FIELD",
            "chat.template: can't render the messages: no",
        ),
        (
            InvalidParametersError("prompt", "prompt must not be empty for this model."),
            "INVALID_FIELD",
            "prompt: must not be empty for this model",
        ),
        (
            InvalidParametersError("grammar", "grammar is not valid GBNF: …."),
            "INVALID_FIELD",
            "sampling.grammar: is not valid GBNF: …",
        ),
        (
            PromptTooLongError("prompt has 9 tokens; the model takes at most 8."),
            "CONTEXT_TOO_LONG",
            "prompt: has 9 tokens; the model takes at most 8",
        ),
    ],
)
def test_what_a_request_gets_wrong_is_told_by_its_field(
    error: EngineError, reason: str, message: str
) -> None:
    told = as_domain_error(error)
    assert isinstance(told, InvalidRequest)
    assert told.reason_name == reason
    assert told.message == message
    assert [violation.field for violation in told.violations] == [message.split(":")[0]]


def test_every_sampling_parameter_is_told_by_its_field() -> None:
    with pytest.raises(InvalidParametersError) as refused:
        SamplingParameters(top_p=2.0).validate()
    told = as_domain_error(refused.value)
    assert told.message == "sampling.top_p: must be above 0 and at most 1"


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (NoModelLoadedError("The model was unloaded."), Unavailable, "UNAVAILABLE"),
        (TooLittleMemoryError("Too little memory."), Internal, "ENGINE_FAILED"),
        (EngineError("It broke."), Internal, "ENGINE_FAILED"),
    ],
)
def test_what_is_no_fault_of_the_request_can_be_tried_again(
    error: EngineError, kind: type[DomainError], reason: str
) -> None:
    told = as_domain_error(error)
    assert type(told) is kind
    assert told.reason_name == reason
    if kind is Internal:
        assert told.message == f"the worker's engine failed: {error}"
