"""Chroma, in this process or on a server: what a vector index works with."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import httpx
import structlog
from chromadb.api import ServerAPI
from chromadb.config import Settings, System
from chromadb.errors import (
    AuthorizationError,
    ChromaAuthError,
    InternalError,
    QuotaError,
    RateLimitError,
)

from evalpool_runtime.errors import Unavailable, reasons

SERVER_SECONDS = 10.0
"""How long a Chroma server has to answer; after that it counts as away."""

# What says nothing about the request: the same may go well at another time.
_AWAY = (
    httpx.HTTPError,
    AuthorizationError,
    ChromaAuthError,
    InternalError,
    QuotaError,
    RateLimitError,
)

_log = structlog.get_logger("evalpool.embedding")


class Chroma(Protocol):
    """Where collections are.

    Attributes:
        prefix: What the names of this service's collections begin with.
    """

    prefix: str

    def opened(self) -> AbstractContextManager[ServerAPI]:
        """Chroma's interface, for one piece of work.

        Raises:
            Unavailable: It is on a server that is away, before or in the midst of the work.
        """
        ...

    def close(self) -> None:
        """Let go of Chroma and its files."""
        ...


class EmbeddedChroma:
    """Chroma in this process, with its files in a folder that is nobody else's.

    Args:
        path: The folder, made if it does not exist.
    """

    prefix = ""

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self._system = System(
            Settings(
                chroma_api_impl="chromadb.api.rust.RustBindingsAPI",
                is_persistent=True,
                persist_directory=str(path),
                anonymized_telemetry=False,
            )
        )
        self._api = _started(self._system)
        self._is_open = True

    @contextlib.contextmanager
    def opened(self) -> Iterator[ServerAPI]:
        """Chroma's interface."""
        yield self._api

    def close(self) -> None:
        """Let go of the files; a second call does nothing."""
        if self._is_open:
            self._is_open = False
            self._system.stop()


class ChromaServer:
    """A Chroma server, which several services may share. It is asked only when it is needed.

    Chroma's own `HttpClient` asks the server while it is made, knows no time-out and does not close
    its connections; what it is made of has none of this.

    Args:
        endpoint: Where it answers, host:port.
        owner: Whose the collections are, such as the service's address: no others are touched.
        ssl: Whether it is asked over TLS.
        header: An HTTP header that it wants, "name: value"; empty for none.
        seconds: How long it has to answer.
    """

    def __init__(
        self,
        endpoint: str,
        owner: str,
        *,
        ssl: bool = False,
        header: str = "",
        seconds: float = SERVER_SECONDS,
    ) -> None:
        # Names in Chroma begin with a letter or digit, which an address need not do.
        self.prefix = f"evalpool-{hashlib.sha256(owner.encode()).hexdigest()[:16]}."
        self._endpoint = endpoint
        host, _, port = endpoint.rpartition(":")
        self._system = System(
            Settings(
                chroma_api_impl="chromadb.api.fastapi.FastAPI",
                chroma_server_host=host,
                chroma_server_http_port=int(port),
                chroma_server_ssl_enabled=ssl,
                chroma_server_headers=dict([parse_header(header)]) if header else {},
                anonymized_telemetry=False,
            )
        )
        self._api = _started(self._system)
        self._session: httpx.Client = self._api._session  # type: ignore[attr-defined]
        self._session.timeout = httpx.Timeout(seconds)

    @contextlib.contextmanager
    def opened(self) -> Iterator[ServerAPI]:
        """Chroma's interface."""
        try:
            yield self._api
        except _AWAY as error:
            raise self._away(error) from error
        except Exception as error:
            # A bare Exception has the text of an answer that is not Chroma's own.
            if type(error) is not Exception:
                raise
            raise self._away(error) from error

    def close(self) -> None:
        """Close the connections."""
        self._session.close()
        self._system.stop()

    def _away(self, error: Exception) -> Unavailable:
        _log.warning(
            "the Chroma server is away",
            server=self._endpoint,
            reason=f"{type(error).__name__}: {str(error)[:200]}",
        )
        return Unavailable(
            reasons.ERROR_REASON_UNAVAILABLE,
            "the service's Chroma server is out of reach; try again",
            retry_after=1.0,
        )


def _started(system: System) -> ServerAPI:
    api: ServerAPI = system.instance(ServerAPI)  # type: ignore[type-abstract]
    system.start()
    return api


def parse_header(text: str) -> tuple[str, str]:
    """An HTTP header's name and value.

    Raises:
        ValueError: The text is no header.
    """
    name, colon, value = text.partition(":")
    name, value = name.strip(), value.strip()
    whole = name + value
    if not (colon and name and value and whole.isascii() and whole.isprintable()) or " " in name:
        raise ValueError('give "name: value", such as "x-chroma-token: …"')
    return name, value
