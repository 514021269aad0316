"""Page tokens: opaque, and good only for the method and the filters that they were made for."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from typing import Any

from evalpool.values import Violation
from evalpool_runtime.errors import InvalidRequest, reasons

_MAC_BYTES = 12


class PageTokens:
    """Makes and reads page tokens.

    Args:
        secret: What the tokens are sealed with; the same for all replicas of a service.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = hashlib.sha256(b"evalpool-page-token" + secret).digest()

    def encode(self, method: str, filters: Any, cursor: Any) -> str:
        """The token of the page after `cursor`; all three are JSON values."""
        body = json.dumps(cursor, separators=(",", ":")).encode()
        mac = self._mac(method, filters, body)
        return base64.urlsafe_b64encode(mac + body).rstrip(b"=").decode()

    def decode(self, method: str, filters: Any, token: str) -> Any:
        """The cursor of a token; None for the empty token of the first page.

        Raises:
            InvalidRequest: The token was not made for this method with these filters.
        """
        if not token:
            return None
        try:
            raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        except (binascii.Error, ValueError):
            raw = b""
        mac, body = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
        if not body or not hmac.compare_digest(mac, self._mac(method, filters, body)):
            raise InvalidRequest(
                [
                    Violation(
                        "page_token",
                        "it was not made by this method with these filters; leave it empty to "
                        "begin again",
                    )
                ],
                reason=reasons.ERROR_REASON_INVALID_PAGE_TOKEN,
            )
        return json.loads(body)

    def _mac(self, method: str, filters: Any, body: bytes) -> bytes:
        scope = json.dumps([method, filters], sort_keys=True, separators=(",", ":")).encode()
        return hmac.digest(self._secret, scope + b"\0" + body, "sha256")[:_MAC_BYTES]
