"""What make says where something that it needs is missing."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("make", "sh", "grep", "sed", "env")


@pytest.fixture
def bare_machine(tmp_path: Path) -> Path:
    """A folder with the project's outer frame, and beside it `bin`, all the programs there are."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None, f"{tool} is needed to run this test"
        (programs / tool).symlink_to(found)
    project = tmp_path / "project"
    shutil.copytree(ROOT / "scripts", project / "scripts")
    shutil.copy(ROOT / "Makefile", project)
    return project


def add_program(project: Path, name: str, script: str) -> None:
    program = project.parent / "bin" / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def make(project: Path, *targets: str) -> subprocess.CompletedProcess[str]:
    programs = project.parent / "bin"
    return subprocess.run(
        [programs / "make", *targets],
        cwd=project,
        env={"PATH": str(programs)},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("target", ["setup", "demo", "test", "check"])
def test_without_python_every_target_stops_with_one_line(bare_machine: Path, target: str) -> None:
    add_program(bare_machine, "c++", "exit 0")
    ended = make(bare_machine, target)
    assert ended.returncode != 0
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert "needs Python 3.11" in line


def test_a_python_that_is_too_old_does_not_count(bare_machine: Path) -> None:
    add_program(bare_machine, "c++", "exit 0")
    add_program(bare_machine, "python3", "exit 1")
    ended = make(bare_machine, "setup")
    assert ended.returncode != 0
    assert "needs Python 3.11" in ended.stderr


@pytest.mark.parametrize(("there", "missing"), [("cc", "C++"), ("c++", "C")])
def test_without_a_compiler_it_stops_with_one_line(
    bare_machine: Path, there: str, missing: str
) -> None:
    add_program(bare_machine, "python3.11", f'exec "{sys.executable}" "$@"')
    add_program(bare_machine, there, "exit 0")
    ended = make(bare_machine, "setup")
    assert ended.returncode != 0
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert f"needs a {missing} compiler" in line
    assert not (bare_machine / ".venv").exists()


def test_the_list_of_targets_needs_nothing(bare_machine: Path) -> None:
    ended = make(bare_machine)
    assert ended.returncode == 0, ended.stderr
    assert "setup" in ended.stdout
    assert ended.stderr == ""
