from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalpool.inference.v1 import inference_pb2
from evalpool.router.v1 import router_pb2
from evalpool.values import InvalidFields, InvalidValue
from evalpool_router.prompts import judge_question, parse_grade
from evalpool_router.requests import (
    infer_tokens,
    parse_chat,
    parse_endpoint,
    parse_evaluate,
    parse_infer,
    question_tokens,
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


@given(st.integers(0, 10))
def test_every_grade_that_the_grammar_allows_is_read(grade: int) -> None:
    assert parse_grade(str(grade)) == grade


@pytest.mark.parametrize("text", ["", "11", "-1", "ten", "1.5", "100", "²", "7 of 10"])
def test_nothing_else_is_a_grade(text: str) -> None:
    assert parse_grade(text) is None


def test_the_judge_is_told_question_context_and_both_answers() -> None:
    asked = judge_question("Q", "expected", "ctx", "given").messages[-1].content
    assert all(part in asked for part in ("Q", "expected", "ctx", "given"))


@given(st.text(), st.integers(1, 1000))
def test_estimates_grow_with_the_text_and_the_answer(prompt: str, tokens: int) -> None:
    request = inference_pb2.InferRequest(prompt=prompt)
    request.sampling.max_tokens = tokens
    assert infer_tokens(request) >= tokens
    question = inference_pb2.ChoiceQuestion(id="q", prompt=prompt, choices=["a", "b"])
    longer = inference_pb2.ChoiceQuestion(id="q", prompt=prompt, choices=["a", "b" * 50])
    assert 0 < question_tokens(question) < question_tokens(longer)
