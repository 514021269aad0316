"""One process on a data directory at a time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from evalpool_runtime.data_directory import DataDirectory, DataDirectoryInUse

HOLD = """
import sys
from pathlib import Path
from evalpool_runtime.data_directory import DataDirectory
directory = DataDirectory(Path(sys.argv[1]), "token")
directory.acquire()
print("held", flush=True)
sys.stdin.read()
"""


def holder(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.communicate()


def test_a_second_process_is_refused_and_told_what_to_do(tmp_path: Path) -> None:
    process = holder(tmp_path)
    try:
        with pytest.raises(DataDirectoryInUse) as caught:
            DataDirectory(tmp_path, "token").acquire()
    finally:
        end(process)

    sentence = str(caught.value)
    assert str(tmp_path) in sentence
    assert "--data-dir" in sentence
    assert "\n" not in sentence


def test_a_process_that_was_killed_leaves_the_directory_free(tmp_path: Path) -> None:
    process = holder(tmp_path)
    process.kill()
    end(process)

    directory = DataDirectory(tmp_path, "token")
    directory.acquire()
    directory.release()


def test_a_released_directory_can_be_taken_again(tmp_path: Path) -> None:
    for _ in range(2):
        directory = DataDirectory(tmp_path / "new" / "deep", "token")
        directory.acquire()
        directory.release()


def test_two_services_may_share_a_directory(tmp_path: Path) -> None:
    directories = [DataDirectory(tmp_path, service) for service in ("token", "dataset")]
    for directory in directories:
        directory.acquire()
    for directory in directories:
        directory.release()
