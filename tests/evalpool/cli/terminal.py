"""Commands with a whole terminal of their own, at which a test types."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

CTRL_C, CTRL_D = "\x03", "\x04"


class Terminal:
    """A terminal with a command in it."""

    def __init__(self, screen: int, process: subprocess.Popen[bytes]) -> None:
        self._screen = screen
        self.process = process
        self._unread = ""

    def type(self, keys: str) -> None:
        os.write(self._screen, keys.encode())

    def line(self, text: str) -> None:
        """Type a line at the next prompt."""
        self.until("> ")
        self.type(f"{text}\r")

    def interrupt(self, shown: str) -> None:
        """Press ctrl-C until something is shown; one that comes between two keys may be missed."""
        while shown not in self._unread:
            self.type(CTRL_C)
            if select.select([self._screen], [], [], 0.5)[0]:
                self._unread += self._read()
        self.until(shown)

    def until(self, text: str) -> str:
        """What is shown next, up to a text."""
        while text not in self._unread:
            piece = self._read()
            assert piece, self._unread
            self._unread += piece
        found, _, self._unread = self._unread.partition(text)
        return found + text

    def end(self) -> int:
        """The exit status."""
        while self._read():
            pass
        return self.process.wait()

    def _read(self) -> str:
        try:
            return os.read(self._screen, 65_536).decode()
        except OSError:
            # How a terminal without a process ends.
            return ""


@contextmanager
def at_a_terminal(*arguments: str) -> Iterator[Terminal]:
    """A command with a whole terminal of its own."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", _AT_ITS_TERMINAL, *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "200", "INPUTRC": os.devnull},
        start_new_session=True,
    )
    os.close(theirs)
    try:
        yield Terminal(ours, process)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


# The terminal sends ctrl-C only to whom it belongs.
_AT_ITS_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "evalpool", *sys.argv[1:]])
"""
