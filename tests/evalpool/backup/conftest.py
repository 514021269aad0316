"""A data directory to back up."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.evalpool.data_directory import make_data_directory


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory to be copied, since migrations take their time."""
    return make_data_directory(tmp_path_factory.mktemp("pristine") / "data")


@pytest.fixture
def data(pristine: Path, tmp_path: Path) -> Path:
    """A data directory whose services do not run, with one uploaded model."""
    return Path(shutil.copytree(pristine, tmp_path / "data"))


@pytest.fixture
def uploaded(data: Path) -> Path:
    """The uploaded model's file in the data directory."""
    (found,) = (data / "router" / "repository" / "sha256").glob("*/*")
    return found
