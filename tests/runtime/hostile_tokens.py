"""Bearer tokens that a server must refuse, made by hand so that no library puts them right."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256

FIELD_PRIME = 2**255 - 19
NOW = 1_800_000_000


def base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


@dataclass
class Token:
    """The parts of a token; what a hostile one changes, and how it is signed.

    Attributes:
        header: JSON text, or a value.
        payload: JSON text, or a value.
        sign: What signs the two parts.
    """

    audience: str
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    header: Any = None
    payload: Any = None
    sign: Callable[[bytes], bytes] | None = None

    def __post_init__(self) -> None:
        self.header = {"alg": "EdDSA", "jwk": self.jwk}
        self.payload = {
            "aud": self.audience,
            "iat": NOW,
            "exp": NOW + 120,
            "jti": "0123456789abcdef",
        }

    @property
    def x(self) -> str:
        return base64url(self.public)

    @property
    def public(self) -> bytes:
        return self.key.public_key().public_bytes_raw()

    @property
    def jwk(self) -> dict[str, Any]:
        return {"kty": "OKP", "crv": "Ed25519", "x": self.x}

    def compact(self) -> str:
        signed = f"{base64url(text(self.header).encode())}.{base64url(text(self.payload).encode())}"
        return f"{signed}.{base64url((self.sign or self.key.sign)(signed.encode()))}"


def ed448(token: Token) -> str:
    key = Ed448PrivateKey.generate()
    jwk = {"kty": "OKP", "crv": "Ed448", "x": base64url(key.public_key().public_bytes_raw())}
    token.header = {"alg": "EdDSA", "jwk": jwk}
    token.sign = key.sign
    return token.compact()


def rsa(token: Token) -> str:
    key = generate_private_key(65537, 2048)
    n = key.public_key().public_numbers().n
    jwk = {"kty": "RSA", "n": base64url(n.to_bytes(256, "big")), "e": "AQAB"}
    token.header = {"alg": "RS256", "jwk": jwk}
    token.sign = lambda data: key.sign(data, PKCS1v15(), SHA256())
    return token.compact()


def header(token: Token, **members: Any) -> str:
    token.header = {**token.header, **members}
    return token.compact()


def without(token: Token, part: str, member: str) -> str:
    setattr(token, part, {k: v for k, v in getattr(token, part).items() if k != member})
    return token.compact()


def jwk(token: Token, **members: Any) -> str:
    return header(token, jwk={**token.jwk, **members})


def claims(token: Token, **members: Any) -> str:
    token.payload = {**token.payload, **members}
    return token.compact()


def hs256_by_public_key(token: Token) -> str:
    token.header["alg"] = "HS256"
    token.sign = lambda data: hmac.digest(token.public, data, "sha256")
    return token.compact()


def twice(token: Token, part: str, member: str, other: Any) -> str:
    """A member two times: the value that is signed for, after another one."""
    whole = json.dumps(getattr(token, part))
    setattr(token, part, "{" + json.dumps(member) + ":" + json.dumps(other) + "," + whole[1:])
    return token.compact()


def point(token: Token, y: int, sign: int = 0) -> str:
    """A key that is some point, with the signature that any message has under small ones."""
    raw = (y | sign << 255).to_bytes(32, "little")
    identity = (1).to_bytes(32, "little")
    token.header["jwk"]["x"] = base64url(raw)
    token.sign = lambda _data: identity + bytes(32)
    return token.compact()


def noncanonical(text_of_43: str) -> str:
    """Another spelling of the same 32 bytes: the last character's two stray bits set."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return text_of_43[:-1] + alphabet[alphabet.index(text_of_43[-1]) | 1]


def parts(token: Token, count: int) -> str:
    return ".".join((token.compact().split(".") * 2)[:count])


def wrong_signature(token: Token) -> str:
    token.sign = lambda data: token.key.sign(data + b"x")
    return token.compact()


def another_key(token: Token) -> str:
    token.sign = Ed25519PrivateKey.generate().sign
    return token.compact()


HOSTILE: dict[str, Callable[[Token], str]] = {
    "empty": lambda t: "",
    "no JWS": lambda t: "secret",
    "two parts": lambda t: parts(t, 2),
    "four parts": lambda t: parts(t, 4),
    "five parts": lambda t: parts(t, 5),
    "a megabyte": lambda t: parts_of(t, payload=json.dumps(t.payload) + " " * 10**6),
    "a kilobyte and a little": lambda t: parts_of(t, payload=json.dumps(t.payload) + " " * 700),
    "characters that are no ASCII": lambda t: "é" + t.compact()[1:],
    "alg none": lambda t: header(t, alg="none"),
    "alg none without a signature": lambda t: header(t, alg="none").rpartition(".")[0] + ".",
    "alg None": lambda t: header(t, alg=None),
    "alg as a list": lambda t: header(t, alg=["EdDSA"]),
    "alg in another case": lambda t: header(t, alg="eddsa"),
    "alg Ed25519": lambda t: header(t, alg="Ed25519"),
    "HS256 by the public key": hs256_by_public_key,
    "Ed448": ed448,
    "RSA": rsa,
    "no alg": lambda t: without(t, "header", "alg"),
    "no jwk": lambda t: without(t, "header", "jwk"),
    "a further jwk member": lambda t: jwk(t, kid="1"),
    "the private member d": lambda t: jwk(t, d=base64url(t.key.private_bytes_raw())),
    "jwk with use": lambda t: jwk(t, use="sig"),
    "jwk no object": lambda t: header(t, jwk=t.x),
    "jwk of another kty": lambda t: jwk(t, kty="EC"),
    "jwk X25519": lambda t: jwk(t, crv="X25519"),
    "x no text": lambda t: jwk(t, x=[t.x]),
    "x empty": lambda t: jwk(t, x=""),
    "x padded": lambda t: jwk(t, x=t.x + "="),
    "x with stray bits": lambda t: jwk(t, x=noncanonical(t.x)),
    "x with a line end": lambda t: jwk(t, x=t.x + "\n"),
    "x in the other alphabet": lambda t: jwk(t, x=base64.b64encode(b"\xff" * 32).decode()[:-1]),
    "x of 31 bytes": lambda t: jwk(t, x=base64url(t.public[:31])),
    "x of 33 bytes": lambda t: jwk(t, x=base64url(t.public + b"\0")),
    "y of the prime": lambda t: point(t, FIELD_PRIME),
    "y of the prime and one": lambda t: point(t, FIELD_PRIME + 1),
    "y of 2^255 - 1": lambda t: point(t, 2**255 - 1),
    "the identity": lambda t: point(t, 1),
    "the identity with the sign": lambda t: point(t, 1, sign=1),
    "a kid": lambda t: header(t, kid="1"),
    "a jku": lambda t: header(t, jku="https://example.org"),
    "an unknown crit": lambda t: header(t, crit=["x"], x=1),
    "b64 false": lambda t: header(t, crit=["b64"], b64=False),
    "typ other": lambda t: header(t, typ="at+jwt"),
    "typ no text": lambda t: header(t, typ=["JWT"]),
    "header no object": lambda t: parts_of(t, header=[1]),
    "header no JSON": lambda t: parts_of(t, header="{"),
    "header no base64": lambda t: "!" + t.compact()[1:],
    "header padded": lambda t: padded_header(t),
    "header deep": lambda t: parts_of(t, header="[" * 600),
    "alg twice": lambda t: twice(t, "header", "alg", "none"),
    "jwk twice": lambda t: twice(t, "header", "jwk", {}),
    "x twice": lambda t: parts_of(
        t, header=json.dumps({"alg": "EdDSA", "jwk": t.jwk}).replace('"x"', '"x": "A", "x"')
    ),
    "aud twice": lambda t: twice(t, "payload", "aud", "other"),
    "exp twice": lambda t: twice(t, "payload", "exp", NOW + 10**6),
    "payload no object": lambda t: parts_of(t, payload=[1]),
    "payload no JSON": lambda t: parts_of(t, payload="exp"),
    "wrong signature": wrong_signature,
    "signed by another key": another_key,
    "signature cut": lambda t: t.compact()[:-3],
    "no signature": lambda t: t.compact().rpartition(".")[0] + ".",
    "no aud": lambda t: without(t, "payload", "aud"),
    "no iat": lambda t: without(t, "payload", "iat"),
    "no exp": lambda t: without(t, "payload", "exp"),
    "no jti": lambda t: without(t, "payload", "jti"),
    "a further claim": lambda t: claims(t, sub="me"),
    "jti too short": lambda t: claims(t, jti="1234567"),
    "jti too long": lambda t: claims(t, jti="j" * 65),
    "jti no text": lambda t: claims(t, jti=12345678),
    "jti with NUL": lambda t: claims(t, jti="12345678\0"),
    "jti with a line end": lambda t: claims(t, jti="12345678\n"),
    "jti no ASCII": lambda t: claims(t, jti="äöüäöüäö"),
    "iat as a float": lambda t: claims(t, iat=float(NOW)),
    "iat as text": lambda t: claims(t, iat=str(NOW)),
    "iat true": lambda t: claims(t, iat=True),
    "iat negative": lambda t: claims(t, iat=-1),
    "exp NaN": lambda t: claims(t, exp=float("nan")),
    "exp of a far future": lambda t: claims(t, exp=10**30),
    "times in the year 10000": lambda t: claims(t, iat=253_402_300_799, exp=253_402_300_800),
    "times in the year 36000": lambda t: claims(t, iat=2**40 - 300, exp=2**40 - 1),
    "times in milliseconds": lambda t: claims(t, iat=NOW * 1000, exp=NOW * 1000 + 120),
    "exp before iat": lambda t: claims(t, exp=NOW - 1),
    "exp with iat": lambda t: claims(t, exp=NOW),
    "lifetime of 301 s": lambda t: claims(t, exp=NOW + 301),
}
"""Refused as TOKEN_INVALID."""

FOR_ANOTHER: dict[str, Callable[[Token], str]] = {
    "another server": lambda t: claims(t, aud="A" * 43),
    "a list of servers": lambda t: claims(t, aud=[t.audience]),
    "an empty list": lambda t: claims(t, aud=[]),
    "nobody": lambda t: claims(t, aud=None),
    "the server in another case": lambda t: claims(t, aud=t.audience.swapcase()),
}
"""Refused as TOKEN_FOR_ANOTHER_SERVER."""

NOT_NOW: dict[str, Callable[[Token], str]] = {
    "iat 31 s ahead": lambda t: claims(t, iat=NOW + 31, exp=NOW + 60),
    "iat in the last second of all": lambda t: claims(t, iat=253_402_300_798, exp=253_402_300_799),
    "exp 31 s ago": lambda t: claims(t, iat=NOW - 100, exp=NOW - 31),
}
"""Refused as TOKEN_EXPIRED."""


def parts_of(token: Token, **parts: Any) -> str:
    for name, value in parts.items():
        setattr(token, name, value)
    return token.compact()


def padded_header(token: Token) -> str:
    """A header whose base64url has the padding that compact JWS leaves out."""
    first = text(token.header)
    while len(first) % 3 == 0:
        first += " "
    signed = (
        base64.urlsafe_b64encode(first.encode()).decode()
        + "."
        + base64url(text(token.payload).encode())
    )
    return f"{signed}.{base64url(token.key.sign(signed.encode()))}"
