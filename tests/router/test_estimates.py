from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from evalpool.inference.v1 import inference_pb2
from evalpool_router.estimates import infer_tokens, most_infer_tokens, question_tokens


@given(st.text(), st.integers(1, 1000))
def test_estimates_grow_with_the_text_and_the_answer(prompt: str, tokens: int) -> None:
    request = inference_pb2.InferRequest(prompt=prompt)
    request.sampling.max_tokens = tokens
    assert most_infer_tokens(request) >= infer_tokens(request) >= tokens
    question = inference_pb2.ChoiceQuestion(id="q", prompt=prompt, choices=["a", "b"])
    longer = inference_pb2.ChoiceQuestion(id="q", prompt=prompt, choices=["a", "b" * 50])
    assert 0 < question_tokens(question) < question_tokens(longer)
