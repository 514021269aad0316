"""The real files that the tests use in place; they are not part of the repository."""

from __future__ import annotations

from pathlib import Path

import pytest

SIQA = Path(__file__).resolve().parents[3] / "shared" / "data" / "siqa"


@pytest.fixture(scope="session")
def siqa() -> Path:
    """The folder with Social IQa's questions and the reference's scores."""
    if not SIQA.is_dir():
        pytest.skip("Social IQa is not at ../shared/data/siqa beside the repository")
    return SIQA
