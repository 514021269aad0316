"""A service as a process of its own, that can be frozen, killed, and started again."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

from evalpool.identity import Identity


class Served:
    """One service that is started again at the same endpoint, with the same data.

    Args:
        name: Which service.
        data: Its data directory.

    Attributes:
        data: Its data directory.
        identity: Its key.
        operator: Its operator's key.
        endpoint: Where it answers; after the first start the same each time.
        log: What it has told, newest last.
    """

    def __init__(self, name: str, data: Path) -> None:
        self.identity = Identity.load_or_create(data / "keys" / f"{name}.json")
        self.operator = Identity.load_or_create(data / "keys" / "operator.json")
        self.endpoint = "127.0.0.1:0"
        self.log: list[dict[str, object]] = []
        self.data = data
        self._name = name
        self._process: Process | None = None
        self._reading: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """Its address."""
        return self.identity.address

    async def start(self, *flags: str) -> None:
        """Start it, and wait until it answers."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "evalpool", "serve", self._name),
            *("--listen", self.endpoint, "--metrics-listen", "", "--log-format", "json"),
            # It ends with this process too, however that ends.
            *("--data-dir", str(self.data), "--stop-with-stdin", *flags),
            stdin=PIPE,
            stderr=PIPE,
            env={k: v for k, v in os.environ.items() if not k.startswith("EVALPOOL_")},
        )
        assert self._process.stderr is not None
        serving = asyncio.Event()
        self._reading = asyncio.create_task(self._read(self._process.stderr, serving))
        begun = len(self.log)
        await serving.wait()
        events = [event for event in self.log[begun:] if event["event"] == "serving"]
        assert events, self.log
        self.endpoint = str(events[0]["endpoint"])

    def freeze(self) -> None:
        """SIGSTOP: its connections stay, and nothing comes of them."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT: it goes on where it was frozen."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    async def kill(self) -> None:
        """SIGKILL, if it runs."""
        if self._process is None or self._reading is None:
            return
        self._process.kill()
        await self._reading
        await self._process.wait()
        self._process = self._reading = None

    async def _read(self, stream: asyncio.StreamReader, serving: asyncio.Event) -> None:
        """Keep what it tells, so that it is never held up by a full pipe."""
        async for line in stream:
            # gRPC itself writes lines of its own.
            own = line.startswith(b"{")
            self.log.append(json.loads(line) if own else {"event": line.decode().rstrip()})
            if self.log[-1]["event"] == "serving":
                serving.set()
        # It has ended, perhaps before it could serve.
        serving.set()
