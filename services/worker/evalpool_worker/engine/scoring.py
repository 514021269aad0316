"""Computes choice trees on one context: packs of whole questions, one batch where they fit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .base import ChoiceQuestion, ChoiceScore
from .choice_tree import (
    ChoiceTree,
    QuestionTooLongError,
    UnscorableError,
    build_choice_tree,
)
from .context import ContextShape, DecodeContext, NoRoomError
from .log_probabilities import log_normalisers, token_log_probabilities
from .shape import GrowingShape
from .tokenisation import EncodedPair, Tokeniser

# Below this many tokens a batch that finds no room is not split further.
_SMALLEST_BATCH = 8


class ScoringCancelledError(Exception):
    """Nobody waits for the questions any more; computing stopped between two batches."""


@dataclass(frozen=True, slots=True)
class PreparedQuestion:
    """A question as trees that each fit its context; one tree but for very large questions.

    Attributes:
        trees: Their choices are the question's, in its order.
        shape: Of the context that it needs.
        fits_batch: Whether the question can share a batch of that context with others.
        prefix: Tokens before those of the trees, which the context holds for all questions.
    """

    trees: tuple[ChoiceTree, ...]
    shape: ContextShape
    fits_batch: bool
    prefix: tuple[int, ...] = ()

    @property
    def nodes(self) -> int:
        """Tokens to compute."""
        return sum(len(tree.nodes) for tree in self.trees)

    @property
    def outputs(self) -> int:
        """Tokens whose logits are needed."""
        return sum(tree.outputs for tree in self.trees)

    @property
    def choices(self) -> int:
        """Number of choices."""
        return sum(len(tree.choice_tokens) for tree in self.trees)

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt."""
        return self.trees[0].prompt_tokens


def prepare_question(
    question: ChoiceQuestion,
    tokeniser: Tokeniser,
    shapes: GrowingShape,
    share_prefixes: bool,
    prefix: tuple[int, ...] = (),
) -> PreparedQuestion:
    """Tokenise a question and lay its choices out for a context that is long enough.

    Args:
        question: The question.
        tokeniser: The model's.
        shapes: Of the contexts.
        share_prefixes: Whether the model's memory can share a part of a sequence.
        prefix: What the questions of the call begin with. It is left out of the trees where this
            question does so too and its rest fits a batch.

    Raises:
        QuestionTooLongError: A choice does not fit the model's context.
        UnscorableError: The question can't be scored.
    """
    try:
        pairs = [tokeniser.encode_pair(prompt, choice) for prompt, choice in question.pairs]
    except ValueError as error:
        raise UnscorableError(str(error)) from error
    for number, pair in enumerate(pairs, start=1):
        if len(pair.tokens) > shapes.most:
            raise QuestionTooLongError(
                f"The prompt with choice {number} has {len(pair.tokens)} tokens; "
                f"the model's context holds {shapes.most}."
            )
    if prefix and share_prefixes:
        rest = _prepare_rest(pairs, shapes, prefix)
        if rest is not None:
            return rest
    tree = build_choice_tree(pairs, share_prefixes)
    longest = max(len(pair.tokens) for pair in pairs)
    if longest > shapes.usual.cells:
        # All choices in one context, so that the prompt is computed once.
        longest = max(longest, min(len(tree.nodes), shapes.most))
    shape = shapes.holding(longest)
    if _fits(tree, shape.batch_tokens, shape.sequences, shape.outputs):
        return PreparedQuestion((tree,), shape, fits_batch=True)
    if _fits(tree, shape.cells, shape.sequences, tree.outputs):
        return PreparedQuestion((tree,), shape, fits_batch=False)
    return PreparedQuestion(tuple(_split(pairs, shape, share_prefixes)), shape, fits_batch=False)


def _prepare_rest(
    pairs: Sequence[EncodedPair], shapes: GrowingShape, prefix: tuple[int, ...]
) -> PreparedQuestion | None:
    """What comes after the prefix, for a batch that it shares with other questions."""
    size = len(prefix)
    if any(pair.tokens[:size] != prefix or pair.prompt_tokens <= size for pair in pairs):
        return None
    needed = size + shapes.usual.batch_tokens
    if needed > shapes.most:
        return None
    shape = shapes.holding(needed)
    tree = build_choice_tree(pairs, computed=size)
    if not _fits(tree, shape.batch_tokens, shape.sequences, shape.outputs):
        return None
    return PreparedQuestion((tree,), shape, fits_batch=True, prefix=prefix)


def _fits(tree: ChoiceTree, nodes: int, choices: int, outputs: int) -> bool:
    return (
        len(tree.nodes) <= nodes and len(tree.choice_tokens) <= choices and tree.outputs <= outputs
    )


def _split(
    pairs: Sequence[EncodedPair], shape: ContextShape, share_prefixes: bool
) -> Iterable[ChoiceTree]:
    """Cut a question's choices into runs whose tokens fit the cache together."""
    start = 0
    while start < len(pairs):
        end, room = start, shape.cells
        # The prompt is counted once a choice, though it is shared: safe, and only large
        # questions come here.
        while end < len(pairs) and end - start < shape.sequences:
            room -= len(pairs[end].tokens)
            if room < 0 and end > start:
                break
            end += 1
        # A run of equal choices is fine here, the question as a whole was checked before.
        run = pairs[start:end]
        yield build_choice_tree(run, share_prefixes, refuse_equal=False)
        start = end


class Scorer:
    """Scores packs of questions on one context.

    After a pack the context holds nothing but what its questions began with, so that the next pack
    of the same call, or of another with the same beginning, need not compute it again.

    Args:
        context: The context; nobody else may use it.
        computed: Told after each batch how many tokens it had.
    """

    def __init__(
        self, context: DecodeContext, computed: Callable[[int], None] = lambda _tokens: None
    ) -> None:
        self._context = context
        self._computed = computed
        self._held: tuple[int, ...] = ()
        # Which sequence holds it.
        self._holder = context.shape.sequences

    def free(self) -> None:
        """Free the context."""
        self._context.free()

    def score(
        self, pack: Sequence[PreparedQuestion], wanted: Callable[[], bool]
    ) -> list[tuple[ChoiceScore, ...]]:
        """Score every question of a pack.

        Args:
            pack: Either one question of any size, or several that fit a batch together and have
                the same prefix.
            wanted: Asked between batches; computing stops when it says False.

        Returns:
            For every question the scores of its choices. A sum is NaN or infinite where the
            model's logits were.

        Raises:
            NoRoomError: Even a small batch of one question finds no room in the KV cache.
            DecodeFailedError: llama.cpp failed; the context must be rebuilt.
            ScoringCancelledError: `wanted` said False.
        """
        if len(pack) == 1:
            sums = [self._sums((tree,), pack[0].prefix, wanted) for tree in pack[0].trees]
        else:
            trees = [question.trees[0] for question in pack]
            try:
                sums = [self._sums(trees, pack[0].prefix, wanted)]
            except NoRoomError:
                middle = len(pack) // 2
                return self.score(pack[:middle], wanted) + self.score(pack[middle:], wanted)
        values = iter(np.concatenate(sums).tolist())
        return [
            tuple(
                ChoiceScore(next(values), tokens)
                for tree in question.trees
                for tokens in tree.choice_tokens
            )
            for question in pack
        ]

    def _sums(
        self, trees: Sequence[ChoiceTree], prefix: tuple[int, ...], wanted: Callable[[], bool]
    ) -> NDArray[np.float64]:
        """Sum of log-probabilities of every choice of the trees, one after another."""
        limit = self._context.shape.batch_tokens
        layout = _Layout(trees)
        while True:
            try:
                self._hold(prefix, limit, wanted)
                for choice in range(layout.choices if prefix else 0):
                    self._context.share(self._holder, choice, len(prefix))
                return self._sums_in_batches(layout, limit, wanted)
            except NoRoomError:
                # Whatever was held may be what takes the room.
                self._held = ()
                if len(trees) > 1 or limit <= _SMALLEST_BATCH:
                    raise
                limit //= 2
            finally:
                if self._held:
                    for choice in range(layout.choices):
                        self._context.forget(choice)
                else:
                    self._context.forget_all()

    def _hold(self, prefix: tuple[int, ...], limit: int, wanted: Callable[[], bool]) -> None:
        """Have the context hold the prefix, computed in the same batches every time."""
        if prefix == self._held:
            return
        self._context.forget_all()
        self._held = ()
        for start in range(0, len(prefix), limit):
            if not wanted():
                raise ScoringCancelledError
            part = prefix[start : start + limit]
            self._context.fill(
                part,
                range(start, start + len(part)),
                [(self._holder,)] * len(part),
                [False] * len(part),
            )
            self._context.decode()
            self._computed(len(part))
        self._held = prefix

    def _sums_in_batches(
        self, layout: _Layout, limit: int, wanted: Callable[[], bool]
    ) -> NDArray[np.float64]:
        sums = np.zeros(layout.choices, dtype=np.float64)
        start = 0
        while start < len(layout.tokens):
            end = layout.batch_end(start, limit, self._context.shape.outputs)
            if not wanted():
                raise ScoringCancelledError
            self._context.fill(
                layout.tokens[start:end],
                layout.positions[start:end],
                layout.sequences[start:end],
                layout.wants_logits[start:end],
            )
            self._context.decode()
            self._computed(end - start)
            layout.add_log_probabilities(start, end, self._context, sums)
            start = end
        return sums


class _Layout:
    """Trees side by side as the columns of a batch, every choice with a sequence id of its own."""

    def __init__(self, trees: Sequence[ChoiceTree]) -> None:
        self.tokens: list[int] = []
        self.positions: list[int] = []
        self.sequences: list[tuple[int, ...]] = []
        self.wants_logits: list[bool] = []
        self.choices = 0
        choices: list[int] = []
        nodes: list[int] = []
        targets: list[int] = []
        for tree in trees:
            first_node, first = len(self.tokens), self.choices
            for node in tree.nodes:
                self.tokens.append(node.token)
                self.positions.append(node.position)
                self.sequences.append(tuple([first + choice for choice in node.choices]))
                self.wants_logits.append(node.wants_logits)
            for prediction in tree.predictions:
                choices.append(first + prediction.choice)
                nodes.append(first_node + prediction.node)
                targets.append(prediction.token)
            self.choices += len(tree.choice_tokens)
        self._choices = np.array(choices, dtype=np.intp)
        self._nodes = np.array(nodes, dtype=np.intp)
        self._targets = np.array(targets, dtype=np.intp)
        # Row of logits of every node, counted over all batches.
        self._rows = np.cumsum(self.wants_logits, dtype=np.intp) - 1

    def batch_end(self, start: int, tokens: int, outputs: int) -> int:
        """Where a batch from `start` ends, given the most tokens and outputs that it may have."""
        end = min(start + tokens, len(self.tokens))
        before = int(self._rows[start - 1]) if start else -1
        # The first node whose row would be one too many ends the batch before it.
        return min(end, int(np.searchsorted(self._rows, before + outputs, side="right")))

    def add_log_probabilities(
        self, start: int, end: int, context: DecodeContext, sums: NDArray[np.float64]
    ) -> None:
        """Add what the batch from `start` to `end` predicts to the choices' sums."""
        before = int(self._rows[start - 1]) + 1 if start else 0
        count = int(self._rows[end - 1]) + 1 - before
        if count == 0:
            return
        logits = context.logits(count)
        normalisers = log_normalisers(logits)
        inside = np.flatnonzero((self._nodes >= start) & (self._nodes < end))
        values = token_log_probabilities(
            logits,
            normalisers,
            self._rows[self._nodes[inside]] - before,
            self._targets[inside],
        )
        np.add.at(sums, self._choices[inside], values)
