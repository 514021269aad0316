"""A real Chroma server, that can be killed, frozen, and started again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections import deque
from pathlib import Path
from threading import Thread


class ChromaProcess:
    """`chroma run` on a free port.

    Args:
        folder: Where it keeps its files.

    Attributes:
        endpoint: Where it answers; after the first start the same each time.
    """

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = int(probe.getsockname()[1])
        self.endpoint = f"127.0.0.1:{self._port}"
        self._folder = folder
        self._reading = Thread()
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._process = subprocess.Popen(
            [
                *(str(Path(sys.executable).with_name("chroma")), "run"),
                *("--host", "127.0.0.1", "--port", str(self._port)),
                *("--path", str(self._folder)),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "ANONYMIZED_TELEMETRY": "False"},
        )
        assert self._process.stdout is not None
        said = []
        for line in self._process.stdout:
            said.append(line)
            if "listening on address" in line:
                # It tells of every call, and a full pipe would hold it up.
                self._reading = Thread(target=deque, args=(self._process.stdout, 0))
                self._reading.start()
                # It says so a moment before it is so.
                while not self._is_listening():
                    pass
                return
        raise AssertionError("".join(said))

    def _is_listening(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0

    def freeze(self) -> None:
        """SIGSTOP: its connections stay, and nothing comes of them."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT: it goes on where it was frozen."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._reading.join()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None
