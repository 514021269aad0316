"""Grammars, each followed in a process of its own that is ended where it takes too much.

See `grammar_process`. The process that they are forked from is started with a model's first grammar
and lives until the model is freed. Who asks a grammar is a generator, which pauses until there is
an answer, so that others need not wait for it.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Generator
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from . import grammar_process
from .errors import EngineError, InvalidParametersError
from .grammar_limits import check_grammar
from .grammar_process import (
    ACCEPT,
    ALLOWED,
    LONGEST_MESSAGE,
    MASK,
    OPEN,
    READY,
    REFUSED,
    TOKEN,
)

_COMMAND = (sys.executable, "-I", "-m", grammar_process.__name__)
_ENVIRONMENT = ("LD_LIBRARY_PATH",)

# By the clock; more is the machine's fault. Processor time is what a grammar is ended for.
_WALL_SECONDS = 30.0
_SHORTEST_WAIT = 0.001

T = TypeVar("T")
Asking: TypeAlias = Generator[None, None, T]
"""What asks a grammar: it pauses for each answer, and at the end gives what it made of them."""


class Grammar:
    """Where one stream stands in its grammar; one thread's at a time.

    It is asked one question after the other. What asks should go on once `answered` names the
    grammar; before that it would wait for the answer.

    Attributes:
        asked: When it was asked last, monotonic, seconds.

    Args:
        channel: To the process that follows it.
        n_vocab: Tokens of the vocabulary.
        text: GBNF.

    Every method raises, at once or when it goes on:
        InvalidParametersError: It can't be read, or takes too much to follow.
        EngineError: The machine is too busy to follow it.
    """

    def __init__(self, channel: socket.socket, n_vocab: int, text: str) -> None:
        self._channel = channel
        self._n_vocab = n_vocab
        self.asked = time.monotonic()
        if self._receive() != READY:
            raise EngineError("No process can be had that follows the grammar.")
        self._send(text.encode(errors="replace"))
        answer = self._answer()
        if answer[:1] == REFUSED:
            raise InvalidParametersError(
                "grammar", f"grammar is not valid GBNF: {answer[1:].decode(errors='replace')}."
            )

    def accepts(self, token: int) -> Asking[bool]:
        """Whether the text may go on with this token; if so, it has."""
        self._send(ACCEPT + TOKEN.pack(token))
        yield
        return self._answer() == ALLOWED

    def allowed(self) -> Asking[NDArray[np.bool_]]:
        """Shape (n_vocab,): with which tokens the text may go on."""
        self._send(MASK)
        yield
        bits = np.frombuffer(self._answer(), dtype=np.uint8)
        return np.unpackbits(bits, count=self._n_vocab).astype(np.bool_)

    def fileno(self) -> int:
        """The number of the socket over which the answer comes."""
        return self._channel.fileno()

    @property
    def overdue(self) -> bool:
        """Whether the answer should have come by now."""
        return time.monotonic() >= self.asked + _WALL_SECONDS

    def close(self) -> None:
        """End what follows it."""
        self._channel.close()

    def _send(self, question: bytes) -> None:
        self.asked = time.monotonic()
        # Where the process has ended, that there is no answer tells it.
        with suppress(BrokenPipeError, ConnectionResetError):
            self._channel.send(question)

    def _answer(self) -> bytes:
        answer = self._receive()
        if not answer:
            raise InvalidParametersError(
                "grammar",
                "grammar is too ambiguous: there are more ways to read the text by it than can be "
                "followed; let each text have one.",
            )
        return answer

    def _receive(self) -> bytes:
        """The next answer; empty where the process has ended."""
        left = self.asked + _WALL_SECONDS - time.monotonic()
        self._channel.settimeout(max(left, _SHORTEST_WAIT))
        try:
            return self._channel.recv(LONGEST_MESSAGE)
        except ConnectionResetError:
            return b""
        except TimeoutError as error:
            raise EngineError(
                f"The grammar was not followed within {_WALL_SECONDS:g} s; "
                "the machine may be overloaded."
            ) from error


def answered(asked: Collection[Grammar], seconds: float) -> list[Grammar]:
    """Those of the grammars that have answered, or are overdue; waits a while for the first.

    Args:
        asked: Grammars that have been asked something.
        seconds: How long to wait at most; it is rounded up to milliseconds.
    """
    channels = select.poll()
    by_number = {grammar.fileno(): grammar for grammar in asked}
    for number in by_number:
        channels.register(number, select.POLLIN)
    told = [by_number[number] for number, _ in channels.poll(seconds * 1000)]
    return told or [grammar for grammar in asked if grammar.overdue]


class Grammars:
    """Follows any number of grammars for one model; from any thread.

    Args:
        path: The model's file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None

    def open(self, text: str, n_vocab: int) -> Grammar:
        """Begin with a grammar; `n_vocab` is the size of the model's vocabulary.

        Raises:
            InvalidParametersError: It can't be read, or is too large or too costly.
            EngineError: No process can be had.
        """
        check_grammar(text)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs, self._lock:
                self._hand_over(theirs)
            return Grammar(ours, n_vocab, text)
        except BaseException:
            ours.close()
            raise

    def close(self) -> None:
        """End the process; a second call does nothing."""
        with self._lock:
            self._end()

    def _hand_over(self, theirs: socket.socket) -> None:
        if self._process is not None and self._process.poll() is not None:
            self._end()
        if self._channel is None:
            self._channel = self._start()
        try:
            socket.send_fds(self._channel, [OPEN], [theirs.fileno()])
        except OSError as error:
            self._end()
            raise EngineError(f"The process that follows grammars has ended: {error}.") from error

    def _start(self) -> socket.socket:
        channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        channel.settimeout(_WALL_SECONDS)
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        try:
            with theirs:
                self._process = subprocess.Popen(  # noqa: S603 - the path is the loaded model's
                    [*_COMMAND, str(self._path)],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd="/",
                    # Threads would not outlive a fork.
                    env={**environment, "OPENBLAS_NUM_THREADS": "1"},
                    start_new_session=True,
                )
            if channel.recv(1) != READY:
                raise EOFError("it ended at once")
        except (OSError, EOFError) as error:
            channel.close()
            self._end()
            raise EngineError(
                f"The process that follows grammars can't be started: {error}."
            ) from error
        return channel

    def _end(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
