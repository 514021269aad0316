"""A conversation with the herd: what was said so far, as much of it as a model's context holds."""

from __future__ import annotations

from dataclasses import dataclass, field

from evalpool.inference.v1 import inference_pb2

SYSTEM = "Answer the question in one short sentence."
"""The system prompt unless there is another, as RouterService.Chat has it."""

BYTES_A_TOKEN = 3
"""Rather few, so that what is taken to fit does."""

TURN_TOKENS = 8
"""What a chat template adds to a turn, about."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A question and its answer."""

    question: str
    answer: str


@dataclass(slots=True)
class Conversation:
    """What was said so far.

    What an answer was based on stands before its own question only, and is not kept.

    Attributes:
        system: The system prompt; empty for the worker's own setting.
        exchanges: Oldest first.
    """

    system: str = SYSTEM
    exchanges: list[Exchange] = field(default_factory=list)

    def asking(self, question: str, context: str = "") -> inference_pb2.Chat:
        """What the model is asked: all that was said, and the question.

        Args:
            question: The question.
            context: What the answer is to be based on; may be empty.
        """
        chat = inference_pb2.Chat()
        if self.system:
            chat.messages.add(role="system", content=self.system)
        for exchange in self.exchanges:
            chat.messages.add(role="user", content=exchange.question)
            chat.messages.add(role="assistant", content=exchange.answer)
        based = f"Context: {context}\n\nQuestion: {question}" if context else question
        chat.messages.add(role="user", content=based)
        return chat

    def shorten(self, question: str, context: str, tokens: int) -> int:
        """Forget the oldest exchanges until the question has room; gives how many went.

        Args:
            question: The question.
            context: What the answer is to be based on.
            tokens: Tokens that all of it may have, by estimate.
        """
        forgotten = 0
        while _tokens(self.asking(question, context)) > tokens and self.forget_oldest():
            forgotten += 1
        return forgotten

    def forget_oldest(self) -> bool:
        """Forget the oldest exchange; False where there is none."""
        if not self.exchanges:
            return False
        del self.exchanges[0]
        return True


def fitting(texts: list[str], tokens: int) -> list[str]:
    """As many texts, from the first on, as have so many tokens by estimate; the last may be cut."""
    kept, room = [], tokens * BYTES_A_TOKEN
    for text in texts:
        data = text.encode()
        if not room:
            break
        kept.append(data[:room].decode(errors="ignore"))
        room = max(room - len(data), 0)
    return kept


def _tokens(chat: inference_pb2.Chat) -> int:
    written = sum(len(message.content.encode()) for message in chat.messages)
    return written // BYTES_A_TOKEN + TURN_TOKENS * len(chat.messages)
