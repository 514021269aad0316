"""The prompt templates."""

from __future__ import annotations

from dataclasses import dataclass

from evalpool_dataset.parts.base import Continuations, Conversation, Spec
from evalpool_dataset.question import Question

SYSTEM_PROMPT = (
    "You answer multiple-choice questions. Reply with the letter of the right answer and nothing "
    "else."
)

OPEN_SYSTEM_PROMPT = "Answer the question in one short sentence."

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


class _WrittenOn:
    """Prompts that models write on, where there is nothing to choose from."""

    __slots__ = ()

    def continuations(self, question: Question) -> Continuations:
        """Never asked for: the kinds are not used with `loglikelihood`.

        Raises:
            ValueError: Always.
        """
        raise ValueError("there is nothing to choose from")


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


@dataclass(frozen=True, slots=True)
class WrittenPrompt(_WrittenOn):
    """A prompt that stands in the row, for `exact_match`.

    Attributes:
        system_prompt: The system prompt; empty for none.
    """

    system_prompt: str = ""

    def conversation(self, question: Question) -> Conversation:
        """The prompt, as it stands."""
        return Conversation(self.system_prompt, question.question)

    def spec(self) -> Spec:
        """For the digest."""
        return {"revision": "written/1", "system_prompt": self.system_prompt}


@dataclass(frozen=True, slots=True)
class OpenPrompt(_WrittenOn):
    """A question to be answered freely, with what it is to be based on before it, for `judge`.

    Attributes:
        system_prompt: The system prompt; empty for none.
    """

    system_prompt: str = OPEN_SYSTEM_PROMPT

    def conversation(self, question: Question) -> Conversation:
        """The context and the question, as in `RouterService.Chat`."""
        if not question.context:
            return Conversation(self.system_prompt, question.question)
        asked = f"Context: {question.context}\n\nQuestion: {question.question}"
        return Conversation(self.system_prompt, asked)

    def spec(self) -> Spec:
        """For the digest."""
        return {"revision": "open/1", "system_prompt": self.system_prompt}
