"""Verification of bearer tokens, in the order that costs an attacker most and us least.

Length; form and members of the header; `alg` and `jwk`; canonical key; small-order key; signature;
`aud`; times. RFC 7515, 7519, 7638 and 8037. What joserfc accepts beyond that (HS256, Ed448, private
members, unknown critical headers) is refused here before it is asked.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import warnings
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from joserfc import jws
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import OKPKey

from evalpool.identity import ALGORITHM, MAX_LIFETIME_SECONDS
from evalpool_runtime.clock import Clock
from evalpool_runtime.errors import Unauthenticated, reasons

MAX_TOKEN_CHARACTERS = 1024
SKEW = timedelta(seconds=30)
REMEMBERED_TOKENS = 10_000

_HEADER_MEMBERS = ({"alg", "jwk"}, {"alg", "jwk", "typ"})
_JWK_MEMBERS = {"kty", "crv", "x"}
_CLAIMS = {"aud", "iat", "exp", "jti"}
_JTI = re.compile(r"[\x20-\x7e]{8,64}")
# 9999-12-31T23:59:59Z: Python knows no later moment.
_LAST_SECOND = 253_402_300_799
_FIELD_PRIME = 2**255 - 19
# The y coordinates of the eight points of small order; signatures under them prove nothing.
# libsodium, ge25519_has_small_order.
_SMALL_ORDER_Y = {
    0,
    1,
    _FIELD_PRIME - 1,
    int.from_bytes(
        bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
    ),
    int.from_bytes(
        bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"), "little"
    ),
}

warnings.filterwarnings("ignore", message="EdDSA is deprecated", category=SecurityWarning)


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """What a bearer token proves.

    Attributes:
        address: Who signed it.
        jti: Its id, chosen by the signer.
        expires: When it lapses.
    """

    address: str
    jti: str
    expires: datetime


class Authenticator:
    """Verifies the bearer tokens that are meant for one server."""

    def __init__(self, audience: str, clock: Clock) -> None:
        self._audience = audience
        self._clock = clock
        self._remembered: OrderedDict[str, VerifiedToken] = OrderedDict()

    def verify(self, token: str) -> VerifiedToken:
        """Verify a compact JWS.

        Raises:
            Unauthenticated: With what is wrong and how to get a good one.
        """
        now = self._clock.now()
        known = self._remembered.get(token)
        if known is not None:
            self._check_expiry(known.expires, now)
            return known
        if len(token) > MAX_TOKEN_CHARACTERS:
            raise _invalid(f"it is longer than {MAX_TOKEN_CHARACTERS} characters")
        key = _key_of(token)
        claims = _verified_claims(token, key)
        verified = self._check_claims(claims, key.thumbprint(), now)
        self._remember(token, verified)
        return verified

    def _check_claims(self, claims: dict[str, Any], address: str, now: datetime) -> VerifiedToken:
        if set(claims) != _CLAIMS:
            raise _invalid("its claims must be exactly aud, iat, exp and jti")
        audience, jti = claims["aud"], claims["jti"]
        issued, expires = claims["iat"], claims["exp"]
        # Printable: it is stored, and PostgreSQL's text holds no NUL.
        if not isinstance(jti, str) or not _JTI.fullmatch(jti):
            raise _invalid("its jti must be a text of 8 to 64 printable ASCII characters")
        # bool is an int to Python
        if (
            type(issued) is not int
            or type(expires) is not int
            or not 0 < issued < expires <= _LAST_SECOND
        ):
            raise _invalid("its iat and exp must be whole seconds since 1970, iat first")
        if audience != self._audience:
            raise Unauthenticated(
                reasons.ERROR_REASON_TOKEN_FOR_ANOTHER_SERVER,
                "authorization: the bearer token's aud is not this server's address; sign one for "
                f"{self._audience}, which GetInfo tells",
                address=self._audience,
            )
        if expires - issued > MAX_LIFETIME_SECONDS:
            raise _invalid(f"its exp is more than {MAX_LIFETIME_SECONDS} s after its iat")
        if datetime.fromtimestamp(issued, UTC) > now + SKEW:
            raise Unauthenticated(
                reasons.ERROR_REASON_TOKEN_EXPIRED,
                "authorization: the bearer token's iat lies in the future; set this machine's "
                "clock right",
            )
        moment = datetime.fromtimestamp(expires, UTC)
        self._check_expiry(moment, now)
        return VerifiedToken(address=address, jti=jti, expires=moment)

    @staticmethod
    def _check_expiry(expires: datetime, now: datetime) -> None:
        if now > expires + SKEW:
            raise Unauthenticated(
                reasons.ERROR_REASON_TOKEN_EXPIRED,
                "authorization: the bearer token has expired; sign a new one",
            )

    def _remember(self, token: str, verified: VerifiedToken) -> None:
        self._remembered[token] = verified
        while len(self._remembered) > REMEMBERED_TOKENS:
            self._remembered.popitem(last=False)


def _key_of(token: str) -> OKPKey:
    parts = token.split(".")
    if len(parts) != 3:
        raise _invalid("it is no compact JWS of three parts")
    header = _json_object(parts[0], "header")
    if set(header) not in _HEADER_MEMBERS:
        raise _invalid("its header must have exactly alg and jwk, and may have typ")
    if header.get("typ", "JWT") != "JWT":
        raise _invalid('its typ must be "JWT"')
    if header["alg"] != ALGORITHM:
        raise _invalid(f'its alg must be "{ALGORITHM}"')
    jwk = header["jwk"]
    if (
        not isinstance(jwk, dict)
        or set(jwk) != _JWK_MEMBERS
        or jwk["kty"] != "OKP"
        or jwk["crv"] != "Ed25519"
        or not isinstance(jwk["x"], str)
    ):
        raise _invalid("its jwk must be exactly kty OKP, crv Ed25519 and x")
    _check_public_key(jwk["x"])
    return OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "x": jwk["x"]})


def _check_public_key(x: str) -> None:
    raw = _decode(x, "x")
    if len(raw) != 32:
        raise _invalid("its x must be 32 bytes")
    # The top bit is the sign of the other coordinate.
    y = int.from_bytes(raw, "little") & (2**255 - 1)
    if y >= _FIELD_PRIME:
        raise _invalid("its x is no canonical point")
    if y in _SMALL_ORDER_Y:
        raise _invalid("its x is a point of small order")


def _verified_claims(token: str, key: OKPKey) -> dict[str, Any]:
    try:
        parsed = jws.deserialize_compact(token, key, algorithms=[ALGORITHM])
    except (JoseError, ValueError) as error:
        raise _invalid("its signature does not match") from error
    return _json_text(parsed.payload, "payload")


def _json_object(part: str, what: str) -> dict[str, Any]:
    return _json_text(_decode(part, what), what)


def _json_text(raw: bytes, what: str) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            raise _invalid(f"its {what} names a member twice")
        return result

    try:
        value = json.loads(raw, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise _invalid(f"its {what} is no JSON") from error
    if not isinstance(value, dict):
        raise _invalid(f"its {what} is no JSON object")
    return value


def _decode(text: str, what: str) -> bytes:
    """Decode canonical, unpadded base64url: one key must not have several spellings."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise _invalid(f"its {what} is no base64url") from error
    if base64.urlsafe_b64encode(raw).rstrip(b"=").decode() != text:
        raise _invalid(f"its {what} is no canonical base64url without padding")
    return raw


def _invalid(problem: str) -> Unauthenticated:
    return Unauthenticated(
        reasons.ERROR_REASON_TOKEN_INVALID,
        f"authorization: the bearer token is not valid: {problem}; sign one with "
        "`evalpool wallet token`",
    )
