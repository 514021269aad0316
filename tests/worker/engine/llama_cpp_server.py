"""llama-cpp-python's own OpenAI-compatible server, in a process, on a free port."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from evalpool_worker.engine.openai import OpenAISettings

MODEL = "smollm2"
KEY = "sk-loopback"
_START_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class LlamaCppServer:
    """A running server, and how an engine asks it."""

    settings: OpenAISettings


@contextmanager
def llama_cpp_python_server(model: Path, log: Path) -> Iterator[LlamaCppServer]:
    """Run the server until the block is left; what it prints goes into `log`."""
    command = [sys.executable, "-u", "-m", "llama_cpp.server", "--model", str(model)]
    command += ["--model_alias", MODEL, "--n_ctx", "1024", "--n_threads", "1"]
    command += ["--n_threads_batch", "1", "--interrupt_requests", "false", "--api_key", KEY]
    command += ["--host", "127.0.0.1", "--port", "0"]
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            url = f"{_address(process, log)}/v1"
            yield LlamaCppServer(OpenAISettings(url, MODEL, dialect="llama_cpp", key=KEY))
        finally:
            process.terminate()
            process.wait()


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if told := re.search(
            r"running on (http://[0-9.]+:[0-9]+)", log.read_text("utf-8", "replace")
        ):
            return told[1]
        time.sleep(0.05)
    raise RuntimeError(f"llama-cpp-python's server does not start: {log.read_text()[-2000:]}")
