"""Ids of transfers and holds, derived so that the sender knows them before it sends."""

from __future__ import annotations

import base64
import hashlib

_HYPHEN = 62
"""The place of "-" in base64url's alphabet."""


def transfer_id(ledger: str, sender: str, request_id: str, index: int = 0) -> str:
    """The id of a transfer or hold.

    Args:
        ledger: The token service's address.
        sender: The sender's address; for minted units the operator's.
        request_id: The request's id.
        index: The place in a batch, from 0.

    Returns:
        43 characters of base64url: SHA-256 over the parts, each ended by a NUL.
    """
    parts = ("evalpool-transfer", ledger, sender, request_id, str(index))
    return derived_id("".join(f"{part}\0" for part in parts).encode())


def derived_id(content: bytes) -> str:
    """SHA-256 of a content as 43 characters of base64url that do not begin with a hyphen.

    A shell command would take such an id for an option; the digest is then hashed again.
    """
    digest = hashlib.sha256(content).digest()
    while digest[0] >> 2 == _HYPHEN:
        digest = hashlib.sha256(digest).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
