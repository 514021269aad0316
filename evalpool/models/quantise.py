"""Make a smaller or faster model from a model, by llama.cpp's own quantisation."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import logging
import os
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Literal, TypeAlias, get_args

from .disk import sync_folder
from .errors import QuantiseError
from .ggml_types import FILE_TYPES
from .gguf import read_gguf

_logger = logging.getLogger("evalpool.models.quantise")

Quantisation: TypeAlias = Literal[
    "F16",
    "BF16",
    "Q8_0",
    "Q6_K",
    "Q5_0",
    "Q5_1",
    "Q5_K_S",
    "Q5_K_M",
    "Q4_0",
    "Q4_1",
    "Q4_K_S",
    "Q4_K_M",
    "Q3_K_S",
    "Q3_K_M",
    "Q3_K_L",
    "Q2_K",
]
"""The file types that need no importance matrix."""

QUANTISATIONS: tuple[str, ...] = get_args(Quantisation)

# llama.cpp has one log for the process; two calls must not exchange its receiver at once.
_one_at_a_time = threading.Lock()


def quantise(source: Path, target: Path, kind: str, *, threads: int | None = None) -> None:
    """Write the model of one GGUF file into another with weights of another type. Blocks.

    The same source, kind and llama-cpp-python give the same bytes, whatever the number of threads.
    A source that is quantised already is quantised again, which loses a little more than doing it
    from full precision.

    Args:
        source: The GGUF file to read.
        target: The file to write; it appears when it is whole.
        kind: One of `QUANTISATIONS`, without regard to case.
        threads: Threads to use; by default one a core.

    Raises:
        InvalidGguf: The source is no GGUF model.
        QuantiseError: The kind is unknown, llama-cpp-python is missing, or llama.cpp failed.
        OSError: The target can't be written.
    """
    name = kind.upper()
    if name not in QUANTISATIONS:
        raise QuantiseError(
            f"{kind[:40]!r} is no kind of quantisation; take one of {', '.join(QUANTISATIONS)}"
        )
    read_gguf(source)
    llama = _llama()
    parameters = llama.llama_model_quantize_default_params()
    parameters.nthread = threads or os.cpu_count() or 1
    parameters.ftype = next(number for number, each in FILE_TYPES.items() if each == name)
    parameters.allow_requantize = True
    draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        with _log_captured(llama) as lines:
            status = llama.llama_model_quantize(
                os.fsencode(source), os.fsencode(draft), ctypes.byref(parameters)
            )
        if status != 0:
            reason = lines[-1] if lines else "llama.cpp gave no reason"
            raise QuantiseError(f"{source.name} could not be quantised to {name}: {reason}")
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        draft.replace(target)
        sync_folder(target.parent)
    finally:
        draft.unlink(missing_ok=True)


def _llama() -> ModuleType:
    try:
        return importlib.import_module("llama_cpp.llama_cpp")
    except ImportError as error:
        raise QuantiseError(
            "quantising needs llama-cpp-python; install it with `pip install 'evalpool[worker]'`"
        ) from error


@contextlib.contextmanager
def _log_captured(llama: ModuleType) -> Iterator[list[str]]:
    """Send llama.cpp's log to `logging` at the level debug, and give its errors."""
    errors: list[str] = []

    def receive(level: int, text: bytes | None, _user_data: object) -> None:
        line = (text or b"").decode(errors="replace").strip()
        if level == 4 and line:  # GGML_LOG_LEVEL_ERROR
            errors.append(line)
        if line and line != ".":
            _logger.debug("%s", line)

    with _one_at_a_time:
        callback = llama.llama_log_callback(receive)
        before = llama.llama_log_callback()
        user_data = ctypes.c_void_p()
        llama.llama_log_get(ctypes.byref(before), ctypes.byref(user_data))
        llama.llama_log_set(callback, ctypes.c_void_p(0))
        try:
            yield errors
        finally:
            llama.llama_log_set(before, user_data)
