"""Fixtures for models: a web server, a package index in a folder, stores."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from evalpool.models import FetchLimits, FetchPolicy, ModelStore
from tests.evalpool.models.site import Site


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    running = Site(tmp_path_factory.mktemp("site"))
    yield running
    running.close()


@pytest.fixture
def policy(site: Site) -> FetchPolicy:
    """Allows the site, which has a private address and a certificate of its own."""
    return FetchPolicy(
        private_addresses=True, certificates=site.trust, hub=site.url, hub_token="hf_secret"
    )


@pytest.fixture
def limits() -> FetchLimits:
    """Does not wait between attempts."""
    return FetchLimits(retry_seconds=0.0)


@pytest.fixture
def index(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that is all the index pip knows."""
    folder = tmp_path_factory.mktemp("index")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "store")


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def small(tmp_path: Path, clock: Clock) -> ModelStore:
    """Holds three of the contents."""
    return ModelStore(tmp_path / "small", capacity_bytes=300, clock=clock)
