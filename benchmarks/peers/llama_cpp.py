"""llama.cpp's own programs: `llama-bench`, `llama-server`, and llama-cpp-python's server."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from benchmarks.deployment import free_port
from benchmarks.peers.environments import (
    PeerUnavailable,
    llama_cpp_python_server,
    llama_cpp_tools,
)

_START_SECONDS = 120.0


def llama_bench(
    model: Path, threads: int, *, prompt: int = 0, generate: int = 0, repetitions: int = 3
) -> float:
    """Tokens a second of `llama-bench`, with `n_ubatch` 256.

    Args:
        model: A GGUF file.
        threads: That it computes with.
        prompt: Tokens of the prompts (pp), or 0.
        generate: Tokens to generate (tg), or 0.
        repetitions: After its own warm-up.

    Raises:
        PeerUnavailable: It cannot be built.
    """
    command = [str(llama_cpp_tools() / "llama-bench"), "-m", str(model), "-t", str(threads)]
    command += ["-p", str(prompt), "-n", str(generate), "-ub", "256", "-b", "256"]
    command += ["-r", str(repetitions), "-o", "json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    (test,) = json.loads(done.stdout)
    return float(test["avg_ts"])


@contextmanager
def llama_server(model: Path, slots: int, threads: int, context: int) -> Iterator[str]:
    """A running `llama-server`; gives its base URL.

    Args:
        model: A GGUF file.
        slots: Streams at a time (`-np`).
        threads: That it computes with.
        context: Tokens that all streams hold together (`-c`).

    Raises:
        PeerUnavailable: It cannot be built or does not start.
    """
    port = free_port()
    command = [str(llama_cpp_tools() / "llama-server"), "-m", str(model), "-np", str(slots)]
    command += ["-c", str(context), "-t", str(threads), "-tb", str(threads)]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    with _serving(command, f"http://127.0.0.1:{port}", "/health") as url:
        yield url


@contextmanager
def llama_cpp_python(model: Path, threads: int, context: int = 2048) -> Iterator[str]:
    """A running server of llama-cpp-python, as lm-evaluation-harness's `gguf` asks it.

    Raises:
        PeerUnavailable: It cannot be installed or does not start.
    """
    port = free_port()
    command = [str(llama_cpp_python_server()), "-m", "llama_cpp.server", "--model", str(model)]
    command += ["--n_ctx", str(context), "--logits_all", "true", "--n_threads", str(threads)]
    command += ["--n_threads_batch", str(threads), "--host", "127.0.0.1", "--port", str(port)]
    with _serving(command, f"http://127.0.0.1:{port}", "/v1/models") as url:
        yield url


@contextmanager
def _serving(command: Sequence[str], url: str, path: str) -> Iterator[str]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not _answers(url + path):
            if process.poll() is not None or time.monotonic() > deadline:
                raise PeerUnavailable(f"{Path(command[0]).name} does not start")
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2.0).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False
