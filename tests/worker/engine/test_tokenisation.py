"""Texts become tokens as lm-evaluation-harness cuts them, and tokens texts again."""

from __future__ import annotations

from evalpool_worker.engine.tokenisation import EncodedPair, Tokeniser


def test_spaces_at_the_end_of_the_prompt_belong_to_the_continuation(tokeniser: Tokeniser) -> None:
    moved = tokeniser.encode_pair("He said ", "yes")
    assert moved == tokeniser.encode_pair("He said", " yes")
    assert moved.prompt_tokens == len(tokeniser.encode("He said"))


def test_an_empty_prompt_is_the_token_that_texts_begin_with(tokeniser: Tokeniser) -> None:
    pair = tokeniser.encode_pair("", "Yes")
    assert pair.prompt_tokens == 1
    assert pair == EncodedPair((pair.tokens[0], *tokeniser.encode("Yes")), 1)


def test_pieces_join_to_the_text(tokeniser: Tokeniser) -> None:
    text = "naïve 東京 🙂\n\tfoo_bar(x) == 'y'"
    assert b"".join(tokeniser.piece(token) for token in tokeniser.encode(text)).decode() == text


def test_control_tokens_are_parsed_in_a_text_and_not_over_the_cuts_of_pieces(
    tokeniser: Tokeniser,
) -> None:
    assert "<|im_end|>" in set(tokeniser.control_texts())
    parsed = tokeniser.encode("a<|im_end|>b")
    cut = tokeniser.encode("a<", "|im_end|>b")
    assert b"".join(map(tokeniser.piece, parsed)) == b"ab"
    assert b"".join(map(tokeniser.piece, cut)) == b"a<|im_end|>b"
