"""Answers of the herd: how they are shown while they come."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.status import Status

from evalpool.cli.failure import Failure
from evalpool.cli.output import Format, errors, print_json, print_json_line, printable
from evalpool.embedding.v1 import embedding_pb2
from evalpool.inference.v1 import inference_pb2

_SHOWN_CHARACTERS = 80


@dataclass(slots=True)
class Answer:
    """An answer as far as it has come.

    Attributes:
        question: What was asked.
        text: What came.
        used: The documents that it is based on, nearest first.
        hold: The hold that pays for it; empty where it costs nothing.
        complete: Its end; None before that.
    """

    question: str
    text: str = ""
    used: list[embedding_pb2.SearchResult] = field(default_factory=list)
    hold: str = ""
    complete: inference_pb2.InferComplete | None = None

    @property
    def tokens_per_second(self) -> float | None:
        """How fast it was written, by the worker's clock; None where that is not known."""
        if self.complete is None:
            return None
        usage = self.complete.usage
        seconds = usage.decode_time.ToTimedelta().total_seconds()
        # The time is from the first token to the last.
        return (usage.completion_tokens - 1) / seconds if seconds > 0 else None


class Screen:
    """Shows answers: texts as they come, or JSON when they are whole.

    Only answers go to standard output.

    Args:
        output: Which of them.
        in_lines: One line of JSON an answer, with its question, for there are several.
    """

    def __init__(self, output: Format, *, in_lines: bool) -> None:
        self._streams = output is Format.TABLE
        self._in_lines = in_lines
        self._missing = ""
        self._begun = False
        self._status: Status | None = None

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Show at a terminal that an answer is awaited, until its first piece comes."""
        self._missing, self._begun = "", False
        if self._streams and errors.is_terminal:
            self._status = errors.status("")
            self._status.start()
        try:
            yield
        except Exception:
            if self._begun:
                # What is said of it has a line of its own.
                print()
            raise
        finally:
            self._stop_waiting()

    def used(self, answer: Answer) -> None:
        """Show what an answer is based on, a line a document, shortened."""
        if not self._streams:
            return
        for each in answer.used:
            line = printable(" ".join(each.content.split()))
            if len(line) > _SHOWN_CHARACTERS:
                line = f"{line[: _SHOWN_CHARACTERS - 1]}…"
            errors.print(f"{each.similarity:.3f}  {line}", style="dim")

    def missing(self, stage: str) -> None:
        """Say what an answer waits for, unless that was said last."""
        if stage != self._missing:
            self.note(stage)
        self._missing = stage

    def note(self, sentence: str) -> None:
        """Say something beside the answers."""
        if self._streams:
            errors.print(printable(sentence), style="dim")

    def piece(self, text: str) -> None:
        """Show a piece of an answer."""
        if self._streams:
            self._stop_waiting()
            self._begun = True
            print(shown(text), end="", flush=True)

    def end(self, answer: Answer) -> None:
        """End an answer; what it took is shown at a terminal.

        Raises:
            Failure: It is not whole.
        """
        if not self._streams:
            document = _document(answer, with_question=self._in_lines)
            (print_json_line if self._in_lines else print_json)(document)
            return
        print()
        complete = answer.complete or inference_pb2.InferComplete()
        if complete.finish_reason == inference_pb2.FINISH_REASON_CANCELLED:
            raise Failure("the generation was cancelled; try again with a longer deadline")
        if errors.is_terminal:
            errors.print(_footer(answer, complete), style="dim")
        elif answer.hold:
            errors.print(f"hold {answer.hold}")

    def stopped(self) -> None:
        """Say that the rest of an answer is not wanted."""
        self._stop_waiting()
        print()
        errors.print("stopped", style="dim")

    def _stop_waiting(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None


def shown(text: str) -> str:
    """A model's text: as it is for programs, without what would command a terminal for people."""
    return printable(text) if sys.stdout.isatty() else text


def _footer(answer: Answer, complete: inference_pb2.InferComplete) -> str:
    usage, rate = complete.usage, answer.tokens_per_second
    told = [f"{usage.completion_tokens} tokens"]
    if rate is not None:
        told.append(f"{rate:.1f} tokens/s")
    told.append(f"{usage.prompt_tokens} prompt tokens")
    if complete.finish_reason == inference_pb2.FINISH_REASON_LENGTH:
        told.append("cut at the limit")
    if answer.hold:
        told.append(f"hold {answer.hold}")
    return ", ".join(told)


def _document(answer: Answer, *, with_question: bool) -> dict[str, object]:
    told: dict[str, object] = {"question": answer.question} if with_question else {}
    told["text"] = answer.text
    if answer.used:
        told["used"] = answer.used
    if answer.hold:
        told["hold"] = answer.hold
    return {**told, "complete": answer.complete}
