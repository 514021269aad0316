"""One question as a tree of tokens: what its choices share is in it once.

The choices' token strings, each without its last token (whose own prediction nobody asks for),
are merged from the left. A node is a token at a position; it belongs to the choices that run
through it, and is computed once with all their sequence ids. Where a choice's tokens begin, the
node before predicts them, so that is where logits are needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .tokenisation import EncodedPair


class UnscorableError(ValueError):
    """The question can't be scored by any attempt; the text says why."""


class QuestionTooLongError(UnscorableError):
    """The question does not fit the model's own context."""


@dataclass(frozen=True, slots=True)
class TreeNode:
    """One token to compute.

    Attributes:
        token: Its id.
        position: Its place in the text, from 0.
        choices: Indexes of the choices that it belongs to, ascending.
        wants_logits: Whether a choice's token comes after it.
    """

    token: int
    position: int
    choices: tuple[int, ...]
    wants_logits: bool


@dataclass(frozen=True, slots=True)
class Prediction:
    """A token of a choice, and the node whose logits say how likely it is."""

    choice: int
    node: int
    token: int


@dataclass(frozen=True, slots=True)
class ChoiceTree:
    """A question ready to be computed.

    Attributes:
        nodes: Depth first, so that a node's parent is always before it.
        predictions: Every token of every choice.
        choice_tokens: Tokens of each choice.
        prompt_tokens: Tokens of the prompt.
        longest: Tokens of the longest path.
        outputs: Nodes that want logits.
    """

    nodes: tuple[TreeNode, ...]
    predictions: tuple[Prediction, ...]
    choice_tokens: tuple[int, ...]
    prompt_tokens: int
    longest: int
    outputs: int


def build_choice_tree(
    pairs: Sequence[EncodedPair],
    share_prefixes: bool = True,
    refuse_equal: bool = True,
    computed: int = 0,
) -> ChoiceTree:
    """Merge the choices of one question.

    Args:
        pairs: The prompt with each choice.
        share_prefixes: False where the model's memory can't share a part of a sequence; every
            choice then has a path of its own.
        refuse_equal: False where the pairs are a part of a question's choices.
        computed: Tokens that all pairs begin with and that are not to be in the tree, fewer than
            the prompt's.

    Raises:
        UnscorableError: There is no choice, a choice has no tokens, or all choices are the same.
    """
    if not pairs:
        raise UnscorableError("The question has no choices.")
    for number, pair in enumerate(pairs, start=1):
        if len(pair.tokens) <= pair.prompt_tokens:
            raise UnscorableError(f"Choice {number} adds no tokens to the prompt.")
    if refuse_equal and len(pairs) > 1 and len({pair.tokens for pair in pairs}) == 1:
        raise UnscorableError("All choices are the same to the model's tokeniser.")

    tokens: list[int] = []
    positions: list[int] = []
    owners: list[list[int]] = []
    wanted: list[bool] = []
    children: dict[tuple[int, int, int], int] = {}
    predictions: list[Prediction] = []
    for choice, pair in enumerate(pairs):
        parent = -1
        group = 0 if share_prefixes else choice
        for position, token in enumerate(pair.tokens[computed:-1], start=computed):
            key = (group, parent, token)
            node = children.get(key)
            if node is None:
                node = children[key] = len(tokens)
                tokens.append(token)
                positions.append(position)
                owners.append([])
                wanted.append(False)
            owners[node].append(choice)
            parent = node
            if position + 1 >= pair.prompt_tokens:
                wanted[node] = True
                predictions.append(Prediction(choice, node, pair.tokens[position + 1]))
    return ChoiceTree(
        nodes=tuple(
            TreeNode(token, position, tuple(choices), wants)
            for token, position, choices, wants in zip(
                tokens, positions, owners, wanted, strict=True
            )
        ),
        predictions=tuple(predictions),
        choice_tokens=tuple(len(pair.tokens) - pair.prompt_tokens for pair in pairs),
        prompt_tokens=min(pair.prompt_tokens for pair in pairs),
        longest=max(len(pair.tokens) - 1 for pair in pairs),
        outputs=sum(wanted),
    )
