"""Connections of a download: only to where it may go, and never at a server's mercy.

A server that sends nothing, or a byte a minute, must not keep a thread and a lock for hours: each
connection is read in short waits, between which the download can be cancelled and its time can run
out, and one that brings too little is given up.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Iterable
from typing import Any

import httpcore

from .policy import FetchLimits

PULSE_SECONDS = 0.5
"""How long a cancelled download goes on at most while its server is silent."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class UnknownHost(Exception):
    """A name that has no address, now."""


class NotPublic(Exception):
    """A host whose address is not one of the public internet."""

    def __init__(self, host: str, address: Address) -> None:
        super().__init__(
            f"{host} has the address {address}, which is not public; the operator can allow "
            "private addresses"
        )


class TooSlow(Exception):
    """A server that sent too little for too long."""


class OutOfTime(Exception):
    """The download's time has run out."""


class Pace:
    """How fast a download comes on.

    Args:
        limits: How much time it has, and how slow it may be.
        pulse: Called where the server is silent; it may raise to cancel.
    """

    def __init__(self, limits: FetchLimits, pulse: Callable[[], None]) -> None:
        self._limits = limits
        self._pulse = pulse
        self._end = time.monotonic() + limits.total_seconds
        self.begin()

    def begin(self) -> None:
        """Give a new connection its time to bring something."""
        self._since = time.monotonic()
        self._received = 0

    @property
    def patience(self) -> float:
        """Seconds to wait for the next byte before `tick` is to be called."""
        left = min(self._since + self._limits.idle_seconds, self._end) - time.monotonic()
        return max(min(left, PULSE_SECONDS), 0.001)

    def tick(self, received: int) -> None:
        """Note that so many bytes came, or none within `patience`.

        Raises:
            OutOfTime: The whole download has taken too long.
            TooSlow: Too little came over this connection.
        """
        now = time.monotonic()
        if now > self._end:
            raise OutOfTime(f"it took longer than {self._limits.total_seconds:.0f} seconds")
        self._received += received
        if now - self._since >= self._limits.idle_seconds:
            if self._received < self._limits.idle_bytes:
                raise TooSlow(
                    f"the server sent {self._received} bytes in {self._limits.idle_seconds:g} "
                    "seconds"
                )
            self.begin()
        if not received:
            self._pulse()


class Backend(httpcore.NetworkBackend):
    """Opens a download's connections.

    The addresses that were checked are what is connected to: were they looked up again, a name
    server could give others the second time.

    Args:
        pace: The download's pace.
        check: Called with a host and each of its addresses; raises to refuse it.
    """

    def __init__(self, pace: Pace, check: Callable[[str, Address], None]) -> None:
        self._pace = pace
        self._check = check
        self._inner = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to the first address that answers.

        Raises:
            UnknownHost: The name has no address.
        """
        addresses = addresses_of(host, port)
        for address in addresses:
            self._check(host, address)
        problem: Exception | None = None
        for address in addresses:
            self._pace.tick(0)
            try:
                stream = self._inner.connect_tcp(
                    str(address), port, timeout, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                problem = error
            else:
                self._pace.begin()
                return _Stream(stream, self._pace)
        raise problem or UnknownHost(f"the host {host} has no address")


class _Stream(httpcore.NetworkStream):
    def __init__(self, inner: httpcore.NetworkStream, pace: Pace) -> None:
        self._inner = inner
        self._pace = pace

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        while True:
            try:
                data = self._inner.read(max_bytes, self._pace.patience)
            except httpcore.ReadTimeout:
                self._pace.tick(0)
            else:
                self._pace.tick(len(data))
                return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, timeout)

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        # The time-out is for the whole handshake.
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, timeout), self._pace)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


def addresses_of(host: str, port: int) -> list[Address]:
    """The addresses of a name, or the one that it is.

    Raises:
        UnknownHost: The name has none.
    """
    try:
        return [ipaddress.ip_address(host)]
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise UnknownHost(f"the host {host} could not be resolved") from error
    # A link-local address names its interface behind a "%".
    texts = dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in found)
    return [ipaddress.ip_address(text) for text in texts]


def check_public(host: str, address: Address) -> None:
    """Refuse an address that is not one of the public internet.

    Raises:
        NotPublic: It is not.
    """
    if not is_public(address):
        raise NotPublic(host, address)


def is_public(address: Address) -> bool:
    """Tell whether an address is one of the public internet.

    An IPv6 address that carries an IPv4 one (mapped, compatible, 6to4, Teredo, NAT64) is judged by
    both.
    """
    if isinstance(address, ipaddress.IPv6Address):
        inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        for network in _CARRYING_IPV4:
            if address in network:
                inner.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if any(each is not None and not is_public(each) for each in inner):
            return False
        if address.ipv4_mapped is not None:
            return True
        if address.is_site_local:
            return False
    return address.is_global and not address.is_multicast


# IPv4-compatible addresses, NAT64's well-known prefix and the one for local use.
_CARRYING_IPV4 = [
    ipaddress.IPv6Network(each) for each in ("::/96", "64:ff9b::/96", "64:ff9b:1::/48")
]
