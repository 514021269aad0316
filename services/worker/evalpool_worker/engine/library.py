"""The llama.cpp library as a process-wide thing: its start, its version, its log."""

from __future__ import annotations

import ctypes
import logging
import threading
from collections import deque

import llama_cpp

_logger = logging.getLogger("evalpool.worker.llama_cpp")

# `enum ggml_log_level` of ggml.h; 5 continues the line before.
_LEVELS = {1: logging.DEBUG, 2: logging.INFO, 3: logging.WARNING, 4: logging.ERROR}
_CONTINUE = 5

# What llama.cpp warns about although this engine does it on purpose.
_EXPECTED = ("n_ctx_seq (", "using full-size SWA cache")


class LogForwarder:
    """Turns llama.cpp's log into records of `logging` and remembers its last errors."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._level = logging.DEBUG
        self._errors: deque[str] = deque(maxlen=8)
        # llama.cpp keeps only the address; without this reference the next line crashes.
        self.callback = llama_cpp.llama_log_callback(self._receive)

    def take_errors(self) -> tuple[str, ...]:
        """Give the last lines logged as errors, and forget them."""
        with self._lock:
            errors = tuple(self._errors)
            self._errors.clear()
        return errors

    def _receive(self, level: int, text: bytes | None, _user_data: object) -> None:
        line = (text or b"").decode("utf-8", errors="replace").rstrip()
        with self._lock:
            if level != _CONTINUE:
                self._level = _LEVELS.get(level, logging.DEBUG)
            severity = self._level
            if severity >= logging.ERROR and line:
                self._errors.append(line)
        if not line or line == ".":
            return
        if any(expected in line for expected in _EXPECTED):
            severity = logging.DEBUG
        if severity >= logging.WARNING:
            _logger.log(severity, "%s", line)
        else:
            # llama.cpp tells hundreds of lines a model load at its level INFO.
            _logger.debug("%s", line)


_lock = threading.Lock()
_forwarder: LogForwarder | None = None


def start_library() -> LogForwarder:
    """Start llama.cpp once a process and send its log to `logging`."""
    global _forwarder
    with _lock:
        if _forwarder is None:
            forwarder = LogForwarder()
            llama_cpp.llama_log_set(forwarder.callback, ctypes.c_void_p(0))
            llama_cpp.llama_backend_init()
            _forwarder = forwarder
        return _forwarder


def library_build() -> str:
    """Versions, commit and processor features of the llama.cpp in use."""
    commit = _ggml_text("ggml_commit")
    features = [
        name.strip()
        for name, _, value in (
            part.partition("=") for part in llama_cpp.llama_print_system_info().decode().split("|")
        )
        if value.strip() == "1"
    ]
    return (
        f"llama-cpp-python {llama_cpp.__version__}, "
        f"llama.cpp {llama_cpp.llama_version().decode()} ({commit}), "
        f"{' '.join(features)}"
    )


def release_threads() -> None:
    """Let the threads go that OpenMP keeps for the calling thread; it gets others when it computes.

    libgomp counts those of all callers, idle or not. Where they are more than the cores, they sleep
    at each of the thousand barriers of a step instead of spinning: one idle model in memory halved
    the speed of another (its team.c: `gomp_managed_threads > gomp_available_cpus`).
    """
    if _pause_openmp is not None:
        _pause_openmp(_SOFT)


# omp_pause_soft of OpenMP 5.0. The symbol comes with what llama.cpp is linked to, if anything.
_SOFT = 1
_pause_openmp = getattr(llama_cpp.llama_cpp._lib, "omp_pause_resource_all", None)


def _ggml_text(function: str) -> str:
    call = getattr(llama_cpp.llama_cpp._lib, function, None)
    if call is None:
        return "unknown"
    call.argtypes, call.restype = [], ctypes.c_char_p
    text: bytes | None = call()
    return text.decode() if text else "unknown"
