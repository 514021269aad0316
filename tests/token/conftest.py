"""What the token service's tests share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from evalpool_runtime.testing import running
from evalpool_token.service import SERVICE
from tests.token.ledger_harness import Ledger


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    """A token service."""
    async with running(SERVICE, tmp_path) as service, AsyncExitStack() as stack:
        yield Ledger(service, stack)
