"""What choices share is computed once, and every token of every choice is predicted once."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from evalpool_worker.engine.choice_tree import ChoiceTree, UnscorableError, build_choice_tree
from evalpool_worker.engine.tokenisation import EncodedPair

tokens = st.integers(0, 3)


def path(tree: ChoiceTree, choice: int) -> list[int]:
    return [node.token for node in tree.nodes if choice in node.choices]


@given(
    st.lists(tokens, min_size=1, max_size=4),
    st.lists(st.lists(tokens, min_size=1, max_size=5), min_size=1, max_size=6),
    st.booleans(),
)
def test_every_choice_keeps_its_text(
    prompt: list[int], continuations: list[list[int]], share: bool
) -> None:
    assume(len(continuations) == 1 or len({tuple(c) for c in continuations}) > 1)
    pairs = [EncodedPair((*prompt, *c), len(prompt)) for c in continuations]
    tree = build_choice_tree(pairs, share_prefixes=share)
    for choice, pair in enumerate(pairs):
        assert path(tree, choice) == list(pair.tokens[:-1])
        predicted = [p for p in tree.predictions if p.choice == choice]
        assert [p.token for p in predicted] == list(pair.tokens[len(prompt) :])
        for prediction in predicted:
            node = tree.nodes[prediction.node]
            assert node.wants_logits
            assert choice in node.choices
    assert tree.outputs == len({p.node for p in tree.predictions})
    assert tree.choice_tokens == tuple(len(c) for c in continuations)


@given(st.lists(st.lists(tokens, min_size=1, max_size=5), min_size=2, max_size=6))
def test_no_two_nodes_are_the_same_text(continuations: list[list[int]]) -> None:
    assume(len({tuple(c) for c in continuations}) > 1)
    tree = build_choice_tree([EncodedPair((9, *c), 1) for c in continuations])
    prefixes = {(9, *c[:end]) for c in continuations for end in range(len(c))}
    assert len(tree.nodes) == len(prefixes)


@given(st.lists(st.lists(tokens, min_size=1, max_size=5), min_size=2, max_size=6))
def test_the_choices_of_a_node_only_get_fewer_along_a_path(continuations: list[list[int]]) -> None:
    # llama.cpp refuses a batch in which sequences part and meet again.
    assume(len({tuple(c) for c in continuations}) > 1)
    tree = build_choice_tree([EncodedPair((9, *c), 1) for c in continuations])
    for choice in range(len(continuations)):
        owners = [set(node.choices) for node in tree.nodes if choice in node.choices]
        assert all(later <= earlier for earlier, later in itertools.pairwise(owners))
        places = [node.position for node in tree.nodes if choice in node.choices]
        assert places == list(range(len(places)))


@pytest.mark.parametrize(
    ("pairs", "reason"),
    [
        ([], "no choices"),
        ([EncodedPair((1, 2), 1), EncodedPair((1,), 1)], "Choice 2 adds no tokens"),
        ([EncodedPair((1, 2), 1), EncodedPair((1, 2), 1)], "All choices are the same"),
    ],
)
def test_what_cant_be_told_apart_is_refused(pairs: list[EncodedPair], reason: str) -> None:
    with pytest.raises(UnscorableError, match=reason):
        build_choice_tree(pairs)


def test_two_equal_choices_beside_another_are_scored() -> None:
    tree = build_choice_tree(
        [EncodedPair((1, 2), 1), EncodedPair((1, 2), 1), EncodedPair((1, 3), 1)]
    )
    assert [p.token for p in tree.predictions] == [2, 2, 3]
