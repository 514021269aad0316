"""Chat templates rendered in a process of their own, one a template; see `template_process`.

The process is started with the first conversation and lives until its renderer is closed. One that
takes too much, dies, or is at a conversation that nobody waits for any more is ended, and the next
conversation gets a new one.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from . import template_process
from .base import ChatMessage
from .errors import EngineError, InvalidParametersError, NoModelLoadedError
from .template_process import LENGTH, OUT_OF_MEMORY, REFUSAL, Setup

_COMMAND = (sys.executable, "-I", "-m", template_process.__name__)

# No secrets of the worker's: only what a Python may need to start, and what time it is here.
_ENVIRONMENT = ("LD_LIBRARY_PATH", "TZ")

# How a process ends that its template has brought down.
_CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE)

_UNLOADED = "The model was unloaded."


@dataclass(frozen=True, slots=True)
class RenderLimits:
    """What rendering one conversation may take.

    Attributes:
        processor_seconds: Processor time; more is the template's fault.
        wall_seconds: Time by the clock, the start of the process included; more is the machine's.
        memory_bytes: Address space of the process, 25 MB of which are Python's and Jinja's.
        output_bytes: Bytes of the text as UTF-8.
    """

    processor_seconds: float = 1.0
    wall_seconds: float = 30.0
    memory_bytes: int = 256 * 2**20
    output_bytes: int = 8 * 2**20


class TemplateRenderer:
    """Renders conversations by one template, one at a time. Belongs to one event loop.

    Args:
        template: The Jinja template.
        bos_token: How the token is written that texts begin with; empty where there is none.
        eos_token: Likewise, for the token that ends texts.
        limits: What one rendering may take.
        given: Whether the template came with the messages, and is at fault for what goes wrong;
            otherwise it is the model's own, which the messages have to suit.
    """

    def __init__(
        self,
        template: str,
        bos_token: str,
        eos_token: str,
        limits: RenderLimits | None = None,
        *,
        given: bool = False,
    ) -> None:
        self._given = given
        self._limits = limits or RenderLimits()
        self._setup = Setup(
            template=template,
            bos_token=bos_token,
            eos_token=eos_token,
            processor_seconds=self._limits.processor_seconds,
            memory_bytes=self._limits.memory_bytes,
            output_bytes=self._limits.output_bytes,
        )
        self._turn = asyncio.Lock()
        self._process: _Process | None = None
        self._closed = False

    async def render(self, messages: Sequence[ChatMessage]) -> str:
        """The text that asks for the assistant's next message.

        Raises:
            InvalidParametersError: The template can't be read, refuses the messages, or takes too
                much for them.
            EngineError: The process can't be started, or fails through no fault of the template.
            NoModelLoadedError: The renderer was closed.
        """
        conversation = json.dumps([asdict(message) for message in messages]).encode()
        async with self._turn:
            if self._closed:
                raise NoModelLoadedError(_UNLOADED)
            try:
                async with asyncio.timeout(self._limits.wall_seconds):
                    if self._process is None:
                        self._process = _Process(self._setup)
                        await self._process.send(self._setup.encode())
                    await self._process.send(conversation)
                    answer = await self._process.receive()
            except TimeoutError as error:
                await self._end()
                raise EngineError(
                    f"The chat template was not rendered within {self._limits.wall_seconds:g} s; "
                    "the machine may be overloaded."
                ) from error
            except EOFError as error:
                raise self._cause_of_death(await self._end()) from error
            except asyncio.CancelledError:
                # In the middle of an answer, which the next conversation must not get.
                await self._end()
                raise
        text = answer[1:].decode()
        if answer[:1] == REFUSAL:
            raise self._refusal(
                f"don't suit the model's chat template: {text}",
                f"can't render the messages: {text}",
            )
        return text

    async def close(self) -> None:
        """End the process; a conversation that is being rendered fails."""
        self._closed = True
        if self._process is not None:
            self._process.kill()
        async with self._turn:
            await self._end()

    async def _end(self) -> int | None:
        process, self._process = self._process, None
        return None if process is None else await process.end()

    def _cause_of_death(self, status: int | None) -> EngineError:
        limits = self._limits
        if self._closed:
            return NoModelLoadedError(_UNLOADED)
        if status == -signal.SIGPROF:
            seconds = limits.processor_seconds
            return self._refusal(
                f"take the model's chat template more than {seconds:g} s to render",
                f"takes more than {seconds:g} s to render the messages",
            )
        if status == OUT_OF_MEMORY:
            mebibytes = limits.memory_bytes // 2**20
            return self._refusal(
                f"take the model's chat template more than {mebibytes} MiB of memory",
                f"takes more than {mebibytes} MiB of memory to render the messages",
            )
        if status in [-crash for crash in _CRASHES]:
            return self._refusal(
                "bring the model's chat template down", "brings the process down that renders it"
            )
        return EngineError(f"The process that renders chat templates ended with status {status}.")

    def _refusal(self, of_messages: str, of_template: str) -> InvalidParametersError:
        field, what = ("template", of_template) if self._given else ("messages", of_messages)
        return InvalidParametersError(field, f"{field} {what.rstrip('.')}.")


class _Process:
    """One process and the way to it.

    Raises:
        EngineError: The system refuses to start it.
    """

    def __init__(self, setup: Setup) -> None:
        # A few of its bytes are not the text's.
        self._longest = setup.output_bytes + 4096
        try:
            self._socket, theirs = socket.socketpair()
        except OSError as error:
            raise _not_started(error) from error
        self._socket.setblocking(False)
        try:
            with theirs:
                # Not by the event loop: uvloop forks, which must not happen beside the threads of
                # gRPC and llama.cpp. This is vfork and exec, a millisecond or two.
                self._process = subprocess.Popen(  # noqa: S603 - nothing of it comes from outside
                    _COMMAND,
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    cwd="/",
                    env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
                    start_new_session=True,
                )
        except OSError as error:
            self._socket.close()
            raise _not_started(error) from error

    async def send(self, frame: bytes) -> None:
        """Send a frame.

        Raises:
            EOFError: The process has ended.
        """
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_sendall(self._socket, LENGTH.pack(len(frame)) + frame)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise EOFError from error

    async def receive(self) -> bytes:
        """Wait for a frame.

        Raises:
            EOFError: The process has ended.
        """
        [size] = LENGTH.unpack(await self._exactly(LENGTH.size))
        if not 1 <= size <= self._longest:
            raise EOFError("a frame that no process of ours sends")
        return await self._exactly(size)

    def kill(self) -> None:
        """Let it end at once."""
        self._process.kill()

    async def end(self) -> int:
        """End it, and give its status as `subprocess` does. Nobody may be sending or receiving."""
        self._process.kill()
        self._socket.close()
        waiting = asyncio.get_running_loop().run_in_executor(None, self._process.wait)
        return await asyncio.shield(waiting)

    async def _exactly(self, size: int) -> bytes:
        loop = asyncio.get_running_loop()
        data = bytearray()
        while len(data) < size:
            try:
                part = await loop.sock_recv(self._socket, min(size - len(data), 2**20))
            except ConnectionResetError as error:
                raise EOFError from error
            if not part:
                raise EOFError
            data += part
        return bytes(data)


def _not_started(error: OSError) -> EngineError:
    return EngineError(f"The process that renders chat templates can't be started: {error}.")
