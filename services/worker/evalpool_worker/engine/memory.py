"""How much memory a context takes, and how much there is."""

from __future__ import annotations

import sys
from pathlib import Path

from .context import ContextShape
from .model import LoadedModel

_FLOAT_BYTES = 4


def context_bytes(model: LoadedModel, shape: ContextShape) -> int:
    """About how much memory a context takes, in bytes.

    Its KV cache, the scores of attention and its mask for one batch, and the logits twice: where
    they are computed and where they are kept.
    """
    cache = model.cache_bytes_a_token * shape.cells
    rows = 2 + (0 if shape.flash_attention else model.n_head)
    attention = rows * shape.batch_tokens * shape.cells * _FLOAT_BYTES
    logits = 2 * shape.outputs * model.n_vocab * _FLOAT_BYTES
    return cache + attention + logits


def free_memory(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that this process can still take without slowing itself or others down.

    What the machine has left, or the container if that is less, without the files that this process
    has mapped: the system would drop the models' weights first, and read them again for each batch.
    Where the system does not tell, there is no end to it.
    """
    left = _field(proc / "meminfo", "MemAvailable:", 1024)
    if left is None:
        return sys.maxsize
    mapped = _field(proc / "self" / "status", "RssFile:", 1024) or 0
    return max(0, min(left, _left_in_container(cgroup)) - mapped)


def _left_in_container(cgroup: Path) -> int:
    try:
        most = int((cgroup / "memory.max").read_text())
        used = int((cgroup / "memory.current").read_text())
    except (OSError, ValueError):
        # No container, or "max".
        return sys.maxsize
    stat = cgroup / "memory.stat"
    files = (_field(stat, "inactive_file", 1) or 0) + (_field(stat, "active_file", 1) or 0)
    return most - used + files


def _field(path: Path, name: str, unit: int) -> int | None:
    """The number after a name in a file of names and numbers; None where it can't be had."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        words = line.split()
        if words and words[0] == name:
            return int(words[1]) * unit
    return None
