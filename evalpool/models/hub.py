"""Files of Hugging Face repositories."""

from __future__ import annotations

from urllib.parse import quote

from .policy import FetchPolicy
from .sources import HubSource


def hub_url(source: HubSource, policy: FetchPolicy) -> str:
    """Give the URL at which the hub serves a repository's file (`/resolve/`)."""
    return (
        f"{policy.hub}/{source.owner}/{source.repository}/resolve/"
        f"{quote(source.revision, safe='')}/{quote(source.file)}"
    )
