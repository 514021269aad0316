"""A conversation at a terminal: arrow keys, a few commands, answers that can be stopped."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from evalpool.cli.answers import Answer
from evalpool.cli.app import run
from evalpool.cli.chat_session import ChatSession
from evalpool.cli.failure import failure_of
from evalpool.cli.output import errors, print_fields, printable
from evalpool.client.conversation import SYSTEM, Conversation

PROMPT = "> "
HISTORY_LINES = 1000

HELP = {
    "/new": "begin anew: nothing of what was said is told to the model any more",
    "/system TEXT": "begin anew with this system prompt; without a text: with the usual one",
    "/model NAME": "have another model answer; without a name: the herd's",
    "/documents SET": "base answers on this document set; without a set: on none",
    "/sources": "show the last answer's documents in full",
    "/help": "show this",
    "ctrl-C": "stops an answer",
    "ctrl-D": "ends",
}


class TerminalChat:
    """Holds a conversation.

    Args:
        session: Asks the questions.
        conversation: What is said in it.
    """

    def __init__(self, session: ChatSession, conversation: Conversation) -> None:
        self._session = session
        self._conversation = conversation
        self._last = Answer("")
        self._commands: Mapping[str, Callable[[str], None]] = {
            "/new": self._begin_anew,
            "/system": self._set_system,
            "/model": self._choose_model,
            "/documents": self._base_on,
            "/sources": self._show_sources,
            "/help": self._show_help,
        }

    def hold(self, history: Path | None) -> None:
        """Answer what is typed until ctrl-D.

        Args:
            history: A file with the lines typed before, which those of now are added to; None: they
                are not kept.

        Raises:
            Failure, grpc.aio.AioRpcError: There is no herd, or no such model or document set.
            OSError: The history can't be read or written.
        """
        model = run(self._session.choose(self._session.model))
        errors.print(
            f"{printable(model.name) or 'the herd'} answers; /help tells the commands", style="dim"
        )
        if self._session.documents:
            self._base_on(self._session.documents)
        with _line_keys(history):
            while (line := _next_line()) is not None:
                if line:
                    self._do(line)

    def _do(self, line: str) -> None:
        name, _, argument = line.partition(" ")
        try:
            if not name.startswith("/"):
                self._last = Answer(line)
                run(self._session.answer(self._last))
            elif name in self._commands:
                self._commands[name](argument.strip())
            else:
                errors.print(f"there is no {printable(name)}; /help tells what there is")
        except KeyboardInterrupt:
            self._session.screen.stopped()
        except Exception as error:
            # What one question fails with is not the conversation's end.
            failure = failure_of(error)
            if failure is None:
                raise
            errors.print(printable(failure.line), style="red")

    def _begin_anew(self, _: str) -> None:
        self._conversation.exchanges.clear()
        errors.print("a new conversation", style="dim")

    def _set_system(self, text: str) -> None:
        self._conversation.system = text or SYSTEM
        self._begin_anew("")

    def _choose_model(self, name: str) -> None:
        model = run(self._session.choose(name))
        errors.print(f"{printable(model.name) or 'the herd'} answers", style="dim")

    def _base_on(self, name: str) -> None:
        if not name:
            self._session.documents = ""
            errors.print("answers are based on no documents", style="dim")
            return
        documents = run(self._session.ground(name))
        count, ready = documents.document_count, documents.embedded_count
        told = f"{count} documents" if ready == count else f"{ready} of {count} documents so far"
        errors.print(f"answers are based on {printable(name)}, {told}", style="dim")

    def _show_sources(self, _: str) -> None:
        if not self._last.used:
            errors.print("the last answer was based on none", style="dim")
        for number, each in enumerate(self._last.used, start=1):
            meta = " ".join(f"{key}={value}" for key, value in sorted(dict(each.meta).items()))
            heading = f"[{number}] {each.similarity:.3f} {meta}".rstrip()
            errors.print(printable(heading), style="bold")
            errors.print(printable(each.content))

    def _show_help(self, _: str) -> None:
        print_fields(dict(HELP))


@contextmanager
def _line_keys(history: Path | None) -> Iterator[None]:
    """Arrow keys for what is typed, and the lines from before."""
    # Not every Python has it; lines can be typed without.
    if importlib.util.find_spec("readline") is None:
        yield
        return
    import readline

    readline.clear_history()
    if history is not None and history.exists():
        readline.read_history_file(history)
    try:
        yield
    finally:
        if history is not None:
            readline.set_history_length(HISTORY_LINES)
            readline.write_history_file(history)


def _next_line() -> str | None:
    """What is typed next; None at the end."""
    while True:
        try:
            if sys.stdout.isatty():
                return input(PROMPT).strip()
            # Standard output is for the answers, and somebody else reads it.
            errors.print(PROMPT, end="")
            return input().strip()
        except EOFError:
            errors.print()
            return None
        except KeyboardInterrupt:
            errors.print("\nctrl-D ends", style="dim")
