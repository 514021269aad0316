"""The prompt templates of multiple choice."""

from __future__ import annotations

from dataclasses import dataclass

from evalpool_dataset.parts.base import Continuations, Conversation, Spec
from evalpool_dataset.question import Question

SYSTEM_PROMPT = (
    "You answer multiple-choice questions. Reply with the letter of the right answer and nothing "
    "else."
)

DELIMITER = " "
"""Between prompt and choice; no part of the choice's length."""


@dataclass(frozen=True, slots=True)
class ChoicePrompt:
    r"""Prompts for questions with choices.

    Under `loglikelihood` the prompt is lm-evaluation-harness's of its task `social_iqa`, "Q:
    {context} {question}\nA:", and each choice continues it after a space. A question without
    context leaves it and its space out. Under `letter` the options are listed and the letter is
    asked for.

    Attributes:
        system_prompt: The system prompt under `letter`; empty for none.
    """

    system_prompt: str = SYSTEM_PROMPT

    def continuations(self, question: Question) -> Continuations:
        """For `loglikelihood`."""
        asked = f"{question.context} {question.question}" if question.context else question.question
        return Continuations(
            prompt=f"Q: {asked}\nA:",
            texts=tuple(DELIMITER + choice for choice in question.choices),
        )

    def conversation(self, question: Question) -> Conversation:
        """For `letter`."""
        letters = question.letters
        lines = [f"Context: {question.context}"] if question.context else []
        lines.append(f"Question: {question.question}")
        lines += [f"{letter}. {c}" for letter, c in zip(letters, question.choices, strict=True)]
        named = f"{', '.join(letters[:-1])} or {letters[-1]}"
        lines.append(f"Answer with one letter: {named}.")
        return Conversation(self.system_prompt, "\n".join(lines))

    def spec(self) -> Spec:
        """For the digest."""
        return {"revision": "choice/1", "system_prompt": self.system_prompt}


class _WrittenOut:
    """Prompts that stand in the rows, for `loglikelihood` alone."""

    __slots__ = ()

    def conversation(self, question: Question) -> Conversation:
        """Never asked for: the kinds are not used with `letter`.

        Raises:
            ValueError: Always.
        """
        raise ValueError("a prompt that is written out is no conversation")


@dataclass(frozen=True, slots=True)
class ContinuedPrompt(_WrittenOut):
    """A prompt that each choice continues, both as they stand."""

    def continuations(self, question: Question) -> Continuations:
        """For `loglikelihood`."""
        return Continuations(prompt=question.question, texts=question.choices)

    def spec(self) -> Spec:
        """For the digest."""
        return {"revision": "continued/1"}


@dataclass(frozen=True, slots=True)
class EndedPrompts(_WrittenOut):
    """Choices that are prompts, each ended by the same text: partial scoring.

    Trinh and Le, "A Simple Method for Commonsense Reasoning" (2018): what counts is how likely the
    ending is, not the choice.
    """

    def continuations(self, question: Question) -> Continuations:
        """For `loglikelihood`."""
        endings = (question.question,) * len(question.choices)
        return Continuations(prompt="", texts=endings, prompts=question.choices)

    def spec(self) -> Spec:
        """For the digest."""
        return {"revision": "ended/1"}
