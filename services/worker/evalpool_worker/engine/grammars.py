"""Grammars, each followed in a process of its own that is ended where it takes too much.

See `grammar_process`. The process that they are forked from is started with a model's first grammar
and lives until the model is freed.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

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


class Grammar:
    """Where one stream stands in its grammar; one thread's at a time.

    Args:
        channel: To the process that follows it.
        n_vocab: Tokens of the vocabulary.
        text: GBNF.

    Every method raises:
        InvalidParametersError: It can't be read, or takes too much to follow.
        EngineError: The machine is too busy to follow it.
    """

    def __init__(self, channel: socket.socket, n_vocab: int, text: str) -> None:
        self._channel = channel
        self._channel.settimeout(_WALL_SECONDS)
        self._n_vocab = n_vocab
        if self._receive() != READY:
            raise EngineError("No process can be had that follows the grammar.")
        answer = self._ask(text.encode(errors="replace"))
        if answer[:1] == REFUSED:
            raise InvalidParametersError(
                "grammar", f"grammar is not valid GBNF: {answer[1:].decode(errors='replace')}."
            )

    def accepts(self, token: int) -> bool:
        """Whether the text may go on with this token; if so, it has."""
        return self._ask(ACCEPT + TOKEN.pack(token)) == ALLOWED

    def allowed(self) -> NDArray[np.bool_]:
        """Shape (n_vocab,): with which tokens the text may go on."""
        bits = np.frombuffer(self._ask(MASK), dtype=np.uint8)
        return np.unpackbits(bits, count=self._n_vocab).astype(np.bool_)

    def close(self) -> None:
        """End what follows it."""
        self._channel.close()

    def _ask(self, question: bytes) -> bytes:
        try:
            self._channel.send(question)
        except (BrokenPipeError, ConnectionResetError):
            answer = b""
        else:
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
        try:
            return self._channel.recv(LONGEST_MESSAGE)
        except ConnectionResetError:
            return b""
        except TimeoutError as error:
            raise EngineError(
                f"The grammar was not followed within {_WALL_SECONDS:g} s; "
                "the machine may be overloaded."
            ) from error


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
