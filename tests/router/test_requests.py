from __future__ import annotations

from fractions import Fraction

import pytest

from evalpool.inference.v1 import inference_pb2
from evalpool.router.v1 import router_pb2
from evalpool.values import InvalidFields, InvalidValue
from evalpool_router.requests import (
    parse_chat,
    parse_endpoint,
    parse_evaluate,
    parse_infer,
)

LONG_TEMPLATE = inference_pb2.Chat(
    messages=[inference_pb2.ChatMessage(role="user", content="Hello")],
    template="é" * 32 * 1024 + "e",
)


@pytest.mark.parametrize("text", ["127.0.0.1:50055", "worker-0.workers:1", "[::1]:65535"])
def test_endpoints_are_hosts_with_ports(text: str) -> None:
    assert parse_endpoint(text) == text


@pytest.mark.parametrize(
    "text",
    ["", "host", "host:0", "host:65536", ":1", "unix:/x", "dns:///h:1", "h:1/x", "a b:1"],
)
def test_anything_else_is_no_endpoint(text: str) -> None:
    with pytest.raises(InvalidValue):
        parse_endpoint(text)


@pytest.mark.parametrize(("text", "value"), [("", 1), ("1", 1), ("2.5", Fraction(5, 2))])
def test_multipliers_are_read_exactly(text: str, value: Fraction) -> None:
    terms = parse_infer(inference_pb2.InferRequest(prompt="p", multiplier=text))
    assert terms.multiplier == value


@pytest.mark.parametrize("text", ["0", "0.5", "-1", "1e3", "01", " 1", "1.", "nan", "9" * 10])
def test_other_multipliers_are_refused(text: str) -> None:
    with pytest.raises(InvalidFields) as refusal:
        parse_infer(inference_pb2.InferRequest(prompt="p", multiplier=text))
    assert [v.field for v in refusal.value.violations] == ["multiplier"]


def test_a_request_without_a_prompt_or_with_too_long_a_template_is_refused() -> None:
    for request, field in (
        (inference_pb2.InferRequest(), "prompt"),
        (inference_pb2.InferRequest(prompt=""), "prompt"),
        (inference_pb2.InferRequest(chat=inference_pb2.Chat()), "chat.messages"),
        (inference_pb2.InferRequest(chat=LONG_TEMPLATE), "chat.template"),
    ):
        with pytest.raises(InvalidFields) as refusal:
            parse_infer(request)
        assert [violation.field for violation in refusal.value.violations] == [field]


@pytest.mark.parametrize("count", [-1, 21])
def test_at_most_20_of_the_likeliest_tokens_are_told(count: int) -> None:
    sampling = inference_pb2.Sampling(logprobs=count)
    with pytest.raises(InvalidFields) as refusal:
        parse_infer(inference_pb2.InferRequest(sampling=sampling))
    assert {v.field for v in refusal.value.violations} == {"prompt", "sampling.logprobs"}
    with pytest.raises(InvalidFields) as refusal:
        parse_chat(router_pb2.ChatRequest(sampling=sampling))
    assert {v.field for v in refusal.value.violations} == {"question", "sampling.logprobs"}


def test_the_texts_of_a_question_are_bounded_in_bytes() -> None:
    longest, longer = "é" * 32 * 1024, "é" * 32 * 1024 + "e"
    with pytest.raises(InvalidFields) as refusal:
        parse_chat(router_pb2.ChatRequest(question=longer, context=longer))
    assert {v.field for v in refusal.value.violations} == {"question", "context"}
    asked = router_pb2.EvaluateRequest(
        question=longer, expected_response=longer, context=longer, response=longer
    )
    with pytest.raises(InvalidFields) as refusal:
        parse_evaluate(asked)
    assert {v.field for v in refusal.value.violations} == {
        "question",
        "expected_response",
        "context",
        "response",
    }
    with pytest.raises(InvalidFields) as refusal:
        parse_evaluate(router_pb2.EvaluateRequest())
    assert {v.field for v in refusal.value.violations} == {"question", "expected_response"}
    parse_chat(router_pb2.ChatRequest(question=longest, context=longest))
    parse_evaluate(
        router_pb2.EvaluateRequest(
            question=longest, expected_response=longest, context=longest, response=longest
        )
    )


@pytest.mark.parametrize("count", [-1, 0, 131_073])
def test_an_answer_has_a_token_at_least(count: int) -> None:
    sampling = inference_pb2.Sampling(max_tokens=count)
    with pytest.raises(InvalidFields) as refusal:
        parse_infer(inference_pb2.InferRequest(prompt="p", sampling=sampling))
    assert [v.field for v in refusal.value.violations] == ["sampling.max_tokens"]
    with pytest.raises(InvalidFields) as refusal:
        parse_chat(router_pb2.ChatRequest(question="q", sampling=sampling))
    assert [v.field for v in refusal.value.violations] == ["sampling.max_tokens"]


def test_a_limit_of_tokens_that_is_not_set_is_no_limit_of_0() -> None:
    parse_infer(inference_pb2.InferRequest(prompt="p"))
    parse_chat(router_pb2.ChatRequest(question="q"))


def test_a_judges_seed_is_one_that_the_engine_takes() -> None:
    asked = router_pb2.EvaluateRequest(question="q", expected_response="e", seed=2**32 - 2)
    parse_evaluate(asked)
    asked.seed += 1
    with pytest.raises(InvalidFields) as refusal:
        parse_evaluate(asked)
    assert [v.field for v in refusal.value.violations] == ["seed"]
