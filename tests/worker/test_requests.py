"""What requests may hold, and that everything wrong with one is told at once."""

from __future__ import annotations

from typing import Any

import pytest

from evalpool.inference.v1 import inference_pb2
from evalpool.values import InvalidFields
from evalpool_worker.engine.base import ChatMessage, SamplingParameters, TemplatedChat
from evalpool_worker.requests import parse_infer, parse_score_choices

USER = inference_pb2.ChatMessage(role="user", content="Hello")


def infer(setting: str = "", **fields: Any) -> Any:
    request = inference_pb2.InferRequest(**fields)
    return parse_infer(request, max_tokens=256, system_prompt=setting)


def refused(**fields: Any) -> dict[str, str]:
    with pytest.raises(InvalidFields) as caught:
        infer(**fields)
    return {violation.field: violation.description for violation in caught.value.violations}


def test_unset_fields_take_the_contracts_defaults() -> None:
    work = infer(prompt="Once")
    assert work.prompt == "Once"
    assert work.parameters == SamplingParameters(
        max_tokens=256, temperature=0, top_k=40, top_p=0.95, min_p=0.05, seed=0
    )


@pytest.mark.parametrize("count", [0, 20])
def test_log_probabilities_come_where_they_are_asked_for(count: int) -> None:
    work = infer(prompt="Once", sampling=inference_pb2.Sampling(logprobs=count))
    assert work.parameters.logprobs == count
    assert infer(prompt="Once").parameters.logprobs is None


@pytest.mark.parametrize(
    ("own", "expected"), [(None, "Be kind."), ("Be brief.", "Be brief."), ("", None)]
)
def test_a_conversation_gets_the_workers_system_prompt_unless_it_says(
    own: str | None, expected: str | None
) -> None:
    fields = {} if own is None else {"system_prompt": own}
    work = infer("Be kind.", chat=inference_pb2.Chat(messages=[USER]), **fields)
    user = ChatMessage("user", "Hello")
    system = () if expected is None else (ChatMessage("system", expected),)
    assert work.prompt == (*system, user)


def test_a_conversation_that_has_a_system_prompt_keeps_it() -> None:
    system = inference_pb2.ChatMessage(role="system", content="Rhyme.")
    work = infer("Be kind.", chat=inference_pb2.Chat(messages=[system, USER]))
    assert [message.content for message in work.prompt] == ["Rhyme.", "Hello"]


def test_a_conversation_may_bring_its_template() -> None:
    chat = inference_pb2.Chat(messages=[USER], template="{{ messages }}")
    messages = (ChatMessage("system", "Be kind."), ChatMessage("user", "Hello"))
    assert infer("Be kind.", chat=chat).prompt == TemplatedChat(messages, "{{ messages }}")


def test_everything_wrong_is_told_at_once() -> None:
    long = "x" * 1_000_001
    told = refused(
        model=inference_pb2.ModelReference(digest="short"),
        reference="r" * 129,
        system_prompt=long,
        chat=inference_pb2.Chat(
            messages=[
                inference_pb2.ChatMessage(role="robot", content="Hello"),
                inference_pb2.ChatMessage(role="user", content=long),
            ],
            template="é" * 32 * 1024 + "e",
        ),
        sampling=inference_pb2.Sampling(
            max_tokens=0,
            temperature=2.1,
            top_k=-1,
            top_p=0,
            min_p=1.1,
            repeat_penalty=0,
            frequency_penalty=-2.1,
            presence_penalty=float("nan"),
            seed=2**32 - 1,
            grammar="x" * (64 * 1024 + 1),
            stop=["", *"abcdefghijklmnop"],
            logprobs=21,
        ),
    )
    assert set(told) == {
        "model.digest",
        "reference",
        "system_prompt",
        "chat.messages[0].role",
        "chat.messages[1].content",
        "chat.template",
        "sampling.max_tokens",
        "sampling.temperature",
        "sampling.top_k",
        "sampling.top_p",
        "sampling.min_p",
        "sampling.repeat_penalty",
        "sampling.frequency_penalty",
        "sampling.presence_penalty",
        "sampling.seed",
        "sampling.grammar",
        "sampling.stop",
        "sampling.stop[0]",
        "sampling.logprobs",
    }
    assert told["sampling.top_p"] == "it is 0; give above 0 to 1"
    assert told["chat.messages[0].role"].startswith('"robot" is no role')


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"chat": inference_pb2.Chat()}, "chat.messages"),
    ],
)
def test_there_must_be_something_to_go_on_from(fields: dict[str, Any], field: str) -> None:
    assert set(refused(**fields)) == {field}


def test_questions_have_ids_of_their_own_and_choices_with_texts() -> None:
    question = inference_pb2.ChoiceQuestion
    request = inference_pb2.ScoreChoicesRequest(
        questions=[
            question(id="a", prompt="x", choices=["y"]),
            question(id="a", prompt="x", choices=[]),
            question(id="", prompt="x", choices=["y", ""]),
            question(id="b" * 65, prompt="x", choices=["y"] * 65),
            question(id="c", prompt="x", choices=["y", "z"], prompts=["p", "q"]),
            question(id="d", choices=["y", "z"], prompts=["p"]),
        ]
    )
    with pytest.raises(InvalidFields) as caught:
        parse_score_choices(request)
    assert {violation.field for violation in caught.value.violations} == {
        "model.digest",
        "questions[1].id",
        "questions[1].choices",
        "questions[2].id",
        "questions[2].choices",
        "questions[3].id",
        "questions[3].choices",
        "questions[4].prompts",
        "questions[5].prompts",
    }


@pytest.mark.parametrize("count", [0, 1001])
def test_a_request_has_1_to_1000_questions(count: int) -> None:
    request = inference_pb2.ScoreChoicesRequest(
        model=inference_pb2.ModelReference(digest="ab" * 32),
        questions=[
            inference_pb2.ChoiceQuestion(id=str(number), choices=["y"]) for number in range(count)
        ],
    )
    with pytest.raises(InvalidFields, match="questions"):
        parse_score_choices(request)
