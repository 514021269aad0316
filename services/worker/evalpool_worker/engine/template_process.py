"""The program of the process that renders by one chat template; run with `python -m`.

The template is a program that came with a file or a request from anywhere. Jinja's sandbox keeps
it from Python's insides, but bounds neither its time nor its memory, so it runs here: in a process
that has nothing but Jinja, that can open nothing, and that the kernel ends where it takes too much.
Only the standard library and Jinja are imported.

Frames go over one socket, standard input, both ways: four bytes of length, most significant first,
then so many bytes of UTF-8. The first frame is a `Setup`, as JSON. Each frame after it is a
conversation, a JSON array of messages, and gets a frame back: `t` and the text, or `r` and the
sentence with which the template refused it.
"""

from __future__ import annotations

import codecs
import importlib
import json
import os
import resource
import signal
import socket
import struct
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

LENGTH = struct.Struct(">I")
TEXT = b"t"
REFUSAL = b"r"

OUT_OF_MEMORY = 3
"""The status with which the process ends where a template takes more memory than it may."""

# What Jinja imports where a template asks for it; by then nothing can be opened any more.
_IMPORTED_LATE = ("html", "jinja2.constants", "jinja2.debug", "pprint", "textwrap")

_LONGEST_REFUSAL = 500
_STANDARD_INPUT = 0


@dataclass(frozen=True, slots=True)
class Setup:
    """What the process is told first.

    Attributes:
        template: The Jinja template.
        bos_token: How the token is written that texts begin with; empty where there is none.
        eos_token: Likewise, for the token that ends texts.
        processor_seconds: Processor time that one rendering may take; SIGPROF ends the process.
        memory_bytes: Address space that the process may have.
        output_bytes: Bytes that a text may have as UTF-8.
    """

    template: str
    bos_token: str
    eos_token: str
    processor_seconds: float
    memory_bytes: int
    output_bytes: int

    def encode(self) -> bytes:
        """The frame that tells it."""
        return json.dumps(asdict(self)).encode()


class RefusedError(Exception):
    """The conversation can't be rendered; the text says why."""


class GenerationTag(Extension):
    """`{% generation %}` marks what the assistant said, for training; here it changes nothing."""

    tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Give what stands between the tags."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class Renderer:
    """Renders conversations with what transformers' `apply_chat_template` offers templates.

    Args:
        setup: The template and its variables.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, loopcontrols]
        )
        self._environment.filters["tojson"] = to_json
        self._environment.globals.update(raise_exception=_refuse, strftime_now=_now)
        self._template: jinja2.Template | None = None

    def answer(self, frame: bytes) -> bytes:
        """Render a conversation.

        Args:
            frame: The messages, as JSON.

        Returns:
            The frame with the text, or with the template's refusal.

        Raises:
            MemoryError: The process has too little memory; it is of no use any more.
        """
        try:
            if self._template is None:
                self._template = self._environment.from_string(self._setup.template)
            return self._text(self._template, json.loads(frame))
        except MemoryError:
            raise
        except Exception as error:
            # The template is the model's own program: whatever it raises is its refusal.
            sentence = str(error) or type(error).__name__
            return REFUSAL + sentence[:_LONGEST_REFUSAL].encode(errors="replace")

    def _text(self, template: jinja2.Template, messages: list[dict[str, str]]) -> bytes:
        text = bytearray(TEXT)
        for piece in template.generate(
            messages=messages,
            bos_token=self._setup.bos_token,
            eos_token=self._setup.eos_token,
            add_generation_prompt=True,
            tools=None,
            documents=None,
            functions=None,
            function_call=None,
            tool_choice=None,
        ):
            text += piece.encode()
            if len(text) > self._setup.output_bytes:
                most = self._setup.output_bytes
                raise RefusedError(f"the text is longer than {most} bytes; shorten the messages")
        return bytes(text)


def to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """The filter `tojson` as chat templates expect it: Jinja's own escapes HTML."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _refuse(message: object) -> None:
    raise RefusedError(str(message))


def _now(form: str) -> str:
    # Local time without a zone, as transformers gives it.
    return datetime.now().strftime(form)


def confine(memory_bytes: int) -> None:
    """Take from this process, for good, what rendering does not need."""
    for module in _IMPORTED_LATE:
        importlib.import_module(module)
    # Of escapes in the template's texts.
    codecs.lookup("unicode_escape")
    # Reads the time zone's file.
    _now("%c")
    for limit in (resource.RLIMIT_NOFILE, resource.RLIMIT_CORE, resource.RLIMIT_NPROC):
        resource.setrlimit(limit, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))


def serve(channel: socket.socket) -> None:
    """Answer conversations until the other side hangs up."""
    first = _receive(channel)
    if first is None:
        return
    setup = Setup(**json.loads(first))
    renderer = Renderer(setup)
    confine(setup.memory_bytes)
    while (frame := _receive(channel)) is not None:
        # Where the timer runs out, the kernel ends the process, whatever it is at.
        signal.setitimer(signal.ITIMER_PROF, setup.processor_seconds)
        answer = renderer.answer(frame)
        signal.setitimer(signal.ITIMER_PROF, 0)
        channel.sendall(LENGTH.pack(len(answer)) + answer)


def _receive(channel: socket.socket) -> bytes | None:
    head = _exactly(channel, LENGTH.size)
    return None if head is None else _exactly(channel, LENGTH.unpack(head)[0])


def _exactly(channel: socket.socket, size: int) -> bytes | None:
    """So many bytes; None where the other side hung up before."""
    data = bytearray()
    while len(data) < size:
        part = channel.recv(min(size - len(data), 1 << 20))
        if not part:
            return None
        data += part
    return bytes(data)


def main() -> None:
    """Serve on standard input."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    try:
        serve(socket.socket(fileno=_STANDARD_INPUT))
    except MemoryError:
        # Without another byte of memory.
        os._exit(OUT_OF_MEMORY)
    except (BrokenPipeError, ConnectionResetError):
        # The worker has gone.
        return


if __name__ == "__main__":
    main()
