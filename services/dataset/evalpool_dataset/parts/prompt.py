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


@dataclass(frozen=True, slots=True)
class WrittenOutPrompt:
    """The prompt that a row has, as it stands; for `loglikelihood` alone."""

    def continuations(self, question: Question) -> Continuations:
        """For `loglikelihood`."""
        return Continuations(prompt=question.question, texts=question.choices)

    def conversation(self, question: Question) -> Conversation:
        """Nothing asks for it: the kind is not used with `letter`."""
        raise NotImplementedError("prompts that are written out are not asked as conversations")

    def spec(self) -> Spec:
        """For the digest."""
        return {"revision": "written_out/1"}
