"""Identity: an Ed25519 key, its address, and the bearer tokens that it signs.

A party's address is the RFC 7638 thumbprint of its public JWK. A call carries a self-signed JWT
(RFC 7519, EdDSA by RFC 8037) with the public key in the header's `jwk`, so that no registration is
needed: the signature proves the address.
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from joserfc import jwt
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import OKPKey

from evalpool.values import parse_address

ALGORITHM = "EdDSA"
MAX_LIFETIME_SECONDS = 300
"""The longest time from a token's `iat` to its `exp`."""
LIFETIME_SECONDS = 120
REUSE_SECONDS = 60
"""How long a token is used again for calls that change nothing: half of its life."""

# RFC 9864 prefers the name Ed25519 to EdDSA; tokens here keep the name that clients know.
warnings.filterwarnings("ignore", message="EdDSA is deprecated", category=SecurityWarning)


class InvalidKeyFile(ValueError):
    """A key file that cannot be used; the message names the file and the remedy."""


class Identity:
    """A party's key pair.

    Attributes:
        address: The party's address, 43 characters of base64url.
    """

    def __init__(self, key: OKPKey) -> None:
        self._key = key
        self._public = {"kty": "OKP", "crv": "Ed25519", "x": _x_of(key)}
        self.address = parse_address(key.thumbprint())
        self._reusable: dict[str, tuple[str, float]] = {}

    @classmethod
    def generate(cls) -> Identity:
        """Make a new key pair, whose address no shell command takes for an option."""
        while True:
            made = cls(OKPKey.generate_key("Ed25519"))
            if not made.address.startswith("-"):
                return made

    @classmethod
    def load(cls, path: Path) -> Identity:
        """Read a key pair from a file.

        Raises:
            InvalidKeyFile: The file is missing or holds no private Ed25519 JWK.
        """
        try:
            data = json.loads(path.read_text())
            if not isinstance(data, dict) or data.get("crv") != "Ed25519" or "d" not in data:
                raise InvalidKeyFile(f"{path} holds no private Ed25519 key; make a new wallet")
            key = OKPKey.import_key({k: data[k] for k in ("kty", "crv", "x", "d")})
            # The private part alone decides; with another x every token would be refused.
            if key.private_key is None or data["x"] != _x_of(OKPKey.import_key(key.private_key)):
                raise InvalidKeyFile(
                    f"{path} holds two halves of different keys; make a new wallet"
                )
            return cls(key)
        except OSError as error:
            raise InvalidKeyFile(f"{path} cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, JoseError) as error:
            if isinstance(error, InvalidKeyFile):
                raise
            raise InvalidKeyFile(f"{path} holds no private Ed25519 key as a JWK") from error

    @classmethod
    def load_or_create(cls, path: Path) -> Identity:
        """Read a key pair from a file, or make one there; safe for two processes at once."""
        if not path.exists():
            identity = cls.generate()
            try:
                identity.save(path)
            except FileExistsError:
                return cls.load(path)
            return identity
        return cls.load(path)

    def save(self, path: Path) -> None:
        """Write the key pair to a new file that only its owner can read.

        Raises:
            FileExistsError: There is a file already; a key is never overwritten.
        """
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Complete before it is seen: link() fails if another process was first.
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w") as file:
                json.dump(self._key.as_dict(private=True), file)
                file.flush()
                os.fsync(file.fileno())
            os.link(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    def derive(self, purpose: str) -> bytes:
        """A secret of 32 bytes that only the holder of the key knows, another for each purpose."""
        seed = self._key.as_dict(private=True)["d"]
        return hmac.digest(str(seed).encode(), b"evalpool " + purpose.encode(), "sha256")

    @property
    def public_jwk(self) -> dict[str, str]:
        """The public key: exactly kty, crv and x."""
        return dict(self._public)

    def token(
        self,
        audience: str,
        *,
        lifetime: int = LIFETIME_SECONDS,
        now: Callable[[], float] = time.time,
        jti: str | None = None,
    ) -> str:
        """Sign a bearer token for one server.

        Args:
            audience: The address of the server that will be called.
            lifetime: Seconds until it expires, at most 300.
            now: Seconds since the epoch.
            jti: The token's id. Default: 128 random bits.
        """
        issued = int(now())
        claims = {
            "aud": audience,
            "iat": issued,
            "exp": issued + min(lifetime, MAX_LIFETIME_SECONDS),
            "jti": jti or secrets.token_urlsafe(16),
        }
        header = {"alg": ALGORITHM, "jwk": self._public}
        return jwt.encode(header, claims, self._key, algorithms=[ALGORITHM])

    def reusable_token(self, audience: str, *, now: Callable[[], float] = time.time) -> str:
        """A token for calls that change nothing, the same one for a minute.

        Signing and verifying costs more than a small call does; servers remember what they have
        verified. A call with an effect needs a token of its own, since its `jti` names the call.

        Args:
            audience: The address of the server that will be called.
            now: Seconds since the epoch.
        """
        moment = now()
        token, signed = self._reusable.get(audience, ("", 0.0))
        # A clock that was set back makes a new one, too.
        if not token or not signed <= moment < signed + REUSE_SECONDS:
            token = self.token(audience, now=lambda: moment)
            self._reusable[audience] = (token, moment)
        return token


def _x_of(key: OKPKey) -> str:
    return str(key.as_dict(private=False)["x"])
