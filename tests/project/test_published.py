"""Without Social IQa beside the repository every test has its like on the samples."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.published import REPOSITORY


def collect(tmp_path: Path, folder: Path) -> str:
    """What pytest says of the tests of scoring, where Social IQa is in a folder or is not."""
    plugin = tmp_path / "elsewhere.py"
    plugin.write_text(
        "import pathlib, tests.published\n"
        f"tests.published.SOCIAL_IQA_FOLDER = pathlib.Path({str(folder)!r})\n"
    )
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "--collect-only", "-p", "elsewhere"),
            *("tests/dataset/test_scoring.py", "-k", "reference"),
        ],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_without_it_its_tests_are_deselected_and_the_report_says_so(tmp_path: Path) -> None:
    said = collect(tmp_path, tmp_path / "nowhere")
    assert "[everyday]" in said
    assert "[social_iqa]" not in said
    assert "1 on Social IQa deselected: it is not at ../shared/data/siqa" in said


def test_with_it_both_run(tmp_path: Path) -> None:
    said = collect(tmp_path, tmp_path)
    assert "[everyday]" in said
    assert "[social_iqa]" in said
    assert "deselected:" not in said
