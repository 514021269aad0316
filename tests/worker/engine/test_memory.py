"""What a context takes agrees with llama.cpp's own count, and what is left with the system's."""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path

import pytest

from evalpool_worker.engine.context import ContextShape, DecodeContext
from evalpool_worker.engine.memory import context_bytes, free_memory
from evalpool_worker.engine.model import LoadedModel

MEBIBYTE = 2**20


@pytest.mark.parametrize("name", ["smollm2_path", "gemma_path"])
@pytest.mark.parametrize("flash_attention", [True, False])
@pytest.mark.parametrize("cells", [512, 2048])
def test_a_context_takes_what_llama_cpp_says(
    request: pytest.FixtureRequest,
    caplog: pytest.LogCaptureFixture,
    name: str,
    flash_attention: bool,
    cells: int,
) -> None:
    model = LoadedModel(request.getfixturevalue(name))
    shape = ContextShape(cells, 256, 32, 32, 1, flash_attention)
    with caplog.at_level(logging.DEBUG, "evalpool.worker.llama_cpp"):
        DecodeContext(model, shape).free()
    sizes = {
        kind: sum(
            float(size) * MEBIBYTE
            for size in re.findall(rf"CPU\s+{kind} buffer size =\s+([0-9.]+) MiB", caplog.text)
        )
        for kind in ("KV", "compute", "output")
    }
    model.free()
    assert sizes["KV"] == model.cache_bytes_a_token * cells
    # Beside the cache the estimate is rough, and must not be far below.
    taken = sum(sizes.values())
    assert 0.9 * taken < context_bytes(model, shape) < 1.3 * taken + 8 * MEBIBYTE


def machine(tmp_path: Path, **files: str) -> tuple[Path, Path]:
    proc, cgroup = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    cgroup.mkdir()
    (proc / "meminfo").write_text("MemTotal: 900 kB\nMemAvailable:    600 kB\n")
    (proc / "self" / "status").write_text("Name:\tx\nRssFile:\t     100 kB\n")
    for name, text in files.items():
        (cgroup / name.replace("_", ".", 1)).write_text(text)
    return proc, cgroup


def test_what_is_left_spares_the_files_that_are_mapped(tmp_path: Path) -> None:
    assert free_memory(*machine(tmp_path)) == 500 * 1024


def test_a_container_without_a_limit_has_what_the_machine_has(tmp_path: Path) -> None:
    assert free_memory(*machine(tmp_path, memory_max="max\n")) == 500 * 1024


def test_a_containers_limit_counts_but_for_files_that_can_be_dropped(tmp_path: Path) -> None:
    files = {
        "memory_max": f"{400 * 1024}\n",
        "memory_current": f"{300 * 1024}\n",
        "memory_stat": f"anon 5\ninactive_file {30 * 1024}\nactive_file {20 * 1024}\n",
    }
    assert free_memory(*machine(tmp_path, **files)) == 50 * 1024


def test_nothing_is_left_rather_than_less(tmp_path: Path) -> None:
    files = {"memory_max": "1\n", "memory_current": "2\n"}
    assert free_memory(*machine(tmp_path, **files)) == 0


def test_a_system_that_does_not_tell_has_no_end(tmp_path: Path) -> None:
    assert free_memory(tmp_path / "proc", tmp_path / "cgroup") == sys.maxsize
