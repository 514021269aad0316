"""Downloads over HTTPS: bounded, resumable, and only to where they may go."""

from __future__ import annotations

import ipaddress
import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

import httpcore
import httpx

from evalpool.values import InvalidValue

from .connection import (
    Address,
    Backend,
    NotPublic,
    OutOfTime,
    Pace,
    TooSlow,
    UnknownHost,
    check_public,
)
from .errors import ModelFetchError
from .policy import FetchLimits, FetchPolicy
from .progress import Progress
from .sources import split_https_url

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")


class _TryAgain(Exception):
    """The attempt broke off in a way that another one may not."""


_PASSING = (
    _TryAgain,
    TooSlow,
    UnknownHost,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    httpcore.TimeoutException,
)
"""What another attempt may not meet with."""


@dataclass(frozen=True, slots=True)
class _Hop:
    """Where one request goes."""

    url: SplitResult
    token: str | None


def download(
    url: str,
    destination: Path,
    progress: Progress,
    policy: FetchPolicy,
    limits: FetchLimits,
    *,
    token: str | None = None,
    what: str | None = None,
) -> None:
    """Download a URL into a file, continuing where an earlier call was broken off.

    Args:
        url: The https: URL.
        destination: The file to write.
        progress: Called with the bytes done and the total, also while nothing comes.
        policy: What may be reached.
        limits: How much and how long.
        token: A bearer token; it never follows a redirect to another host.
        what: What errors call the thing; by default the URL without its query.

    Raises:
        ModelFetchError: It could not be downloaded.
        OSError: The file could not be written.
    """
    start = _split(url)
    name = what or start._replace(query="").geturl()
    transfer = _Download(start, destination, progress, policy, limits, token, name)
    pace = Pace(limits, transfer.report)
    failures = 0
    try:
        with _connections(policy, pace) as connections:
            while True:
                before = transfer.done
                pace.begin()
                try:
                    transfer.attempt(connections)
                    break
                except _PASSING as error:
                    # One that drips brings new bytes for ever.
                    came_on = transfer.done > before and not isinstance(error, TooSlow)
                    failures = 0 if came_on else failures + 1
                    if failures >= limits.attempts:
                        raise ModelFetchError(
                            f"{name} could not be fetched: {_reason(error)}"
                        ) from error
                    time.sleep(limits.retry_seconds * 2 ** max(failures - 1, 0))
    except (OutOfTime, NotPublic, httpcore.UnsupportedProtocol) as error:
        raise ModelFetchError(f"{name} could not be fetched: {error}") from error
    transfer.finish()


class _Download:
    """One file on its way, over as many attempts as it takes."""

    def __init__(
        self,
        start: SplitResult,
        destination: Path,
        progress: Progress,
        policy: FetchPolicy,
        limits: FetchLimits,
        token: str | None,
        name: str,
    ) -> None:
        self._start = start
        self._destination = destination
        self._origin = destination.with_name(destination.name + ".origin")
        self._progress = progress
        self._policy = policy
        self._limits = limits
        self._token = token
        self._name = name
        self._validator = self._remembered_validator()
        self._total: int | None = None
        self.done = destination.stat().st_size if self._validator else 0

    def report(self) -> None:
        """Tell how far it is; this may raise to cancel."""
        self._progress(self.done, self._total)

    def attempt(self, connections: httpcore.ConnectionPool) -> None:
        """Get what is missing; `done` tells how far it came when this raises."""
        hop = _Hop(self._start, self._token)
        for _ in range(self._limits.redirects + 1):
            with self._request(connections, hop) as response:
                if response.status not in _REDIRECTS:
                    self._receive(response)
                    return
                hop = self._redirect(hop, response)
        raise ModelFetchError(f"{self._name} redirects more than {self._limits.redirects} times")

    def finish(self) -> None:
        """Forget what was kept for a continuation."""
        self._origin.unlink(missing_ok=True)

    @contextmanager
    def _request(
        self, connections: httpcore.ConnectionPool, hop: _Hop
    ) -> Iterator[httpcore.Response]:
        self._check_literal(hop.url)
        headers: dict[bytes | str, bytes | str] = {
            "host": hop.url.netloc,
            "user-agent": "evalpool",
            "accept": "*/*",
            # A content coding would make byte ranges and sizes mean something else.
            "accept-encoding": "identity",
        }
        if hop.token:
            headers["authorization"] = f"Bearer {hop.token}"
        if self.done and self._validator:
            headers["range"] = f"bytes={self.done}-"
            headers["if-range"] = self._validator
        seconds = {
            "connect": self._limits.connect_seconds,
            "write": self._limits.idle_seconds,
            "pool": self._limits.connect_seconds,
        }
        url = hop.url._replace(fragment="").geturl()
        with connections.stream(
            "GET", url, headers=headers, extensions={"timeout": seconds}
        ) as response:
            yield response

    def _check_literal(self, url: SplitResult) -> None:
        """A proxy resolves names itself; what is no name can be checked here."""
        if self._policy.private_addresses:
            return
        try:
            address = ipaddress.ip_address(url.hostname or "")
        except ValueError:
            return
        check_public(url.hostname or "", address)

    def _redirect(self, hop: _Hop, response: httpcore.Response) -> _Hop:
        location = _header(response, "location") or ""
        try:
            url = split_https_url(urljoin(hop.url.geturl(), location))
        # ValueError is urljoin's, and InvalidValue's base.
        except ValueError as error:
            raise ModelFetchError(
                f"{self._name} redirects to {location[:80]!r}, and only https: is followed"
            ) from error
        if url.username is not None or url.password is not None:
            raise ModelFetchError(f"{self._name} redirects to a URL with a user or a password")
        same = (url.hostname, url.port or 443) == (hop.url.hostname, hop.url.port or 443)
        return _Hop(url, hop.token if same else None)

    def _receive(self, response: httpcore.Response) -> None:
        status = response.status
        if status == 416 and self.done:
            if _header(response, "content-range") == f"bytes */{self.done}":
                return
            # What is here is longer than what is there: it belongs to something else.
            self._begin(None)
            raise _TryAgain("the server refused to continue the download")
        if status in _TRANSIENT:
            raise _TryAgain(f"the server answers with status {status}")
        if status not in (200, 206):
            raise ModelFetchError(f"{self._name} could not be fetched: {_refusal(status)}")
        if (_header(response, "content-encoding") or "identity").lower() != "identity":
            raise ModelFetchError(
                f"{self._name} could not be fetched: the server compresses, which was not asked for"
            )
        length = _whole_number(_header(response, "content-length"))
        if status == 206:
            self._check_range(_header(response, "content-range") or "")
        else:
            self._begin(_strong_validator(response))
        self._total = None if length is None else self.done + length
        most = self._limits.max_bytes
        if self._total is not None and self._total > most:
            raise ModelFetchError(
                f"{self._name} has {self._total} bytes; at most {most} are allowed"
            )
        with self._destination.open("r+b") as file:
            file.seek(self.done)
            file.truncate()
            for chunk in response.iter_stream():
                if self.done + len(chunk) > most:
                    raise ModelFetchError(f"{self._name} is longer than the {most} bytes allowed")
                file.write(chunk)
                self.done += len(chunk)
                self.report()

    def _check_range(self, content_range: str) -> None:
        match = _CONTENT_RANGE.fullmatch(content_range)
        if match is None or int(match[1]) != self.done or not self._validator:
            self._begin(None)
            raise _TryAgain("the server continued the download at another place")

    def _begin(self, validator: str | None) -> None:
        """Start the file anew, and remember what its bytes belong to."""
        self._origin.unlink(missing_ok=True)
        self._destination.open("wb").close()
        self.done = 0
        self._validator = validator
        if validator is not None:
            note = json.dumps({"url": self._start.geturl(), "validator": validator})
            draft = self._origin.with_name(self._origin.name + ".new")
            draft.write_text(note, encoding="utf-8")
            draft.replace(self._origin)

    def _remembered_validator(self) -> str | None:
        try:
            note = json.loads(self._origin.read_text(encoding="utf-8"))
            known = note["url"] == self._start.geturl() and self._destination.exists()
            return str(note["validator"]) if known else None
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None


def _connections(policy: FetchPolicy, pace: Pace) -> httpcore.ConnectionPool:
    """A pool for one download. The environment's proxies and netrc count only by the policy."""

    def check(host: str, address: Address) -> None:
        # What is connected to is then the proxy, which the operator chose.
        if policy.proxy is None and not policy.private_addresses:
            check_public(host, address)

    return httpcore.ConnectionPool(
        # By httpx, which knows where authorities are found: SSL_CERT_FILE and so on.
        ssl_context=policy.certificates or httpx.create_ssl_context(),
        proxy=None if policy.proxy is None else _proxy(policy.proxy),
        network_backend=Backend(pace, check),
    )


def _proxy(url: str) -> httpcore.Proxy:
    parts = urlsplit(url)
    auth = None
    if parts.username is not None:
        auth = (unquote(parts.username), unquote(parts.password or ""))
    return httpcore.Proxy(parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl(), auth)


def _split(url: str) -> SplitResult:
    try:
        return split_https_url(url)
    except InvalidValue as error:
        raise ModelFetchError(str(error)) from error


def _header(response: httpcore.Response, name: str) -> str | None:
    """A header, its last line where it comes more than once; None where it does not come."""
    wanted = name.encode()
    values = [value for key, value in response.headers if key.lower() == wanted]
    return values[-1].decode("latin-1") if values else None


def _strong_validator(response: httpcore.Response) -> str | None:
    """The entity tag, if a continuation can rely on it (RFC 9110, section 13.1.5)."""
    tag = _header(response, "etag")
    if tag is None or tag.startswith("W/") or _header(response, "accept-ranges") == "none":
        return None
    return tag


def _whole_number(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"\d{1,19}", text) else None


def _refusal(status: int) -> str:
    match status:
        case 401 | 403:
            return (
                f"the server refuses access (status {status}); "
                "a hub's gated model needs its terms accepted and HF_TOKEN set"
            )
        case 404 | 410:
            return f"the server has no such file (status {status})"
    return f"the server answers with status {status}"


def _reason(error: Exception) -> str:
    match error:
        case _TryAgain() | TooSlow() | UnknownHost():
            return str(error)
        case httpcore.ConnectTimeout() | httpcore.PoolTimeout():
            return "no connection in time"
        case httpcore.ConnectError():
            return f"no connection ({error})"
    return f"the connection broke off ({error})"
