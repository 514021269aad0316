"""What a fetch may reach, and how much and how long it may take."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from .sources import split_https_url

PUBLIC_HUB = "https://huggingface.co"


@dataclass(frozen=True, slots=True)
class FetchPolicy:
    """What a fetch may reach.

    Attributes:
        file_roots: The folders that `file:` sources may lie in, links resolved. None by default:
            a source may come from somebody else, and this machine's files are not theirs.
        private_addresses: Whether `https:` may connect to loopback, private, link-local and other
            addresses that are not public. Off by default, for the same reason.
        certificates: The TLS context to verify servers with, where a mirror's certificate comes
            from an own authority; None takes the public authorities.
        proxy: The URL of an HTTP proxy for `https:` and `hf:`. The proxy then resolves the hosts'
            names and has to keep requests from private addresses itself.
        hub: The base URL of the Hugging Face hub.
        hub_token: The hub's access token, for repositories that ask for one. Sent to the hub only.
    """

    file_roots: tuple[Path, ...] = ()
    private_addresses: bool = False
    certificates: ssl.SSLContext | None = None
    proxy: str | None = None
    hub: str = PUBLIC_HUB
    hub_token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        split_https_url(self.hub)

    @classmethod
    def from_environment(
        cls, *, file_roots: tuple[Path, ...] = (), private_addresses: bool = False
    ) -> FetchPolicy:
        """Take the hub (`HF_ENDPOINT`), its token (`HF_TOKEN`) and the proxy (`HTTPS_PROXY`).

        Raises:
            InvalidValue: `HF_ENDPOINT` is no https: URL.
        """
        return cls(
            file_roots=file_roots,
            private_addresses=private_addresses,
            proxy=os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy") or None,
            hub=(os.environ.get("HF_ENDPOINT") or PUBLIC_HUB).rstrip("/"),
            hub_token=os.environ.get("HF_TOKEN") or None,
        )


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """How much and how long a fetch may take.

    Attributes:
        max_bytes: The size of the file, at most.
        max_archive_bytes: The size of a wheel, and of an archive inside one, at most.
        connect_seconds: The time for a connection to stand.
        idle_seconds: The time in which a connection must bring `idle_bytes`, or is given up.
        idle_bytes: So many bytes.
        total_seconds: The time of the whole fetch.
        redirects: How many redirects are followed.
        attempts: How often a download is begun or continued before it is given up; one that
            brought new bytes does not count, unless it was too slow.
        retry_seconds: The wait before the second attempt; it doubles with each further one.
    """

    max_bytes: int = 64 * 1024**3
    max_archive_bytes: int = 4 * 1024**3
    connect_seconds: float = 15.0
    idle_seconds: float = 60.0
    idle_bytes: int = 64 * 1024
    total_seconds: float = 6 * 3600.0
    redirects: int = 5
    attempts: int = 3
    retry_seconds: float = 1.0
