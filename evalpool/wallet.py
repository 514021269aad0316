"""Wallets: named keys of one user, and the addresses of the servers that the user has met."""

from __future__ import annotations

import json
import os
import re
import secrets
import tempfile
from pathlib import Path

import platformdirs

from evalpool.identity import Identity

DEFAULT_NAME = "default"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class WalletError(ValueError):
    """A wallet that cannot be used; the message says what to do."""


class AddressMismatch(WalletError):
    """A server has another address than when it was first met."""


def home() -> Path:
    """Where wallets lie: $EVALPOOL_HOME, or the user's configuration directory."""
    configured = os.environ.get("EVALPOOL_HOME")
    return Path(configured) if configured else Path(platformdirs.user_config_dir("evalpool"))


class Wallets:
    """The keys in a directory.

    Args:
        directory: Holds `wallets/<name>.json` and `addresses.json`.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = directory or home()

    def names(self) -> list[str]:
        """The wallets' names, in order."""
        return sorted(path.stem for path in (self.directory / "wallets").glob("*.json"))

    def new(self, name: str) -> Identity:
        """Make a wallet.

        Raises:
            WalletError: The name is taken or not valid.
        """
        identity = Identity.generate()
        try:
            identity.save(self._path(name))
        except FileExistsError as error:
            raise WalletError(f'there is a wallet "{name}" already; choose another name') from error
        return identity

    def get(self, name: str = DEFAULT_NAME) -> Identity:
        """Open a wallet; the default one is made on first use.

        Raises:
            WalletError: There is no wallet of this name.
        """
        path = self._path(name)
        if name == DEFAULT_NAME:
            return Identity.load_or_create(path)
        if not path.exists():
            raise WalletError(
                f'there is no wallet "{name}"; make it with `evalpool wallet new {name}`'
            )
        return Identity.load(path)

    def add(self, name: str, key_file: Path) -> None:
        """Link a key file under a name.

        A link to another file gives way; a key of the user's own never does.
        """
        path = self._path(name)
        target = key_file.resolve()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if path.exists() and (not path.is_symlink() or path.resolve() == target):
            return
        Identity.load(key_file)
        link = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        link.symlink_to(target)
        link.replace(path)

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise WalletError(
                f'"{name}" is no wallet name; give 1 to 64 letters, digits, dots, hyphens or '
                "underscores"
            )
        return self.directory / "wallets" / f"{name}.json"


class AddressBook:
    """The addresses of servers by endpoint, trusted on first use."""

    def __init__(self, directory: Path | None = None) -> None:
        self._path = (directory or home()) / "addresses.json"

    def get(self, endpoint: str) -> str | None:
        """The address of the server at an endpoint, where it is known."""
        return self._read().get(endpoint)

    def learn(self, endpoint: str, address: str) -> None:
        """Remember a server's address.

        Raises:
            AddressMismatch: The endpoint is known under another address.
        """
        known = self._read()
        if known.get(endpoint, address) != address:
            raise AddressMismatch(
                f"the server at {endpoint} is {address}, and was {known[endpoint]} before; if that "
                f"is right, forget the old one with `evalpool wallet forget {endpoint}`"
            )
        if endpoint not in known:
            self._write({**known, endpoint: address})

    def forget(self, endpoint: str) -> bool:
        """Forget a server; returns whether it was known."""
        known = self._read()
        if endpoint not in known:
            return False
        self._write({key: value for key, value in known.items() if key != endpoint})
        return True

    def replace(self, addresses: dict[str, str]) -> None:
        """Remember servers whose addresses are known for sure, such as those just started."""
        self._write({**self._read(), **addresses})

    def _read(self) -> dict[str, str]:
        try:
            data = json.loads(self._path.read_text())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise WalletError(f"{self._path} cannot be read; mend or remove it") from error
        if not isinstance(data, dict):
            raise WalletError(f"{self._path} holds no addresses by endpoint; mend or remove it")
        return {str(key): str(value) for key, value in data.items()}

    def _write(self, addresses: dict[str, str]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.NamedTemporaryFile(
            "w", dir=self._path.parent, prefix=".addresses", delete=False
        ) as file:
            json.dump(addresses, file, indent=1, sort_keys=True)
        Path(file.name).replace(self._path)
