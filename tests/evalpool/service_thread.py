"""Real services for tests that are not asynchronous themselves."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from evalpool_runtime.service import ServiceDefinition
from evalpool_runtime.testing import ServiceUnderTest, running


@contextmanager
def running_in_a_thread(
    definition: ServiceDefinition[Any], data_dir: Path, **settings: Any
) -> Iterator[ServiceUnderTest]:
    """Run a service on an event loop of its own, in a thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        service = running(definition, data_dir, **settings)
        made = asyncio.run_coroutine_threadsafe(service.__aenter__(), loop).result()
        try:
            yield made
        finally:
            leave = service.__aexit__(None, None, None)
            asyncio.run_coroutine_threadsafe(leave, loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
