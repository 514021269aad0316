"""Downloads over HTTPS: bounded, resumable, and only to where they may go."""

from __future__ import annotations

import ipaddress
import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urljoin

import httpx

from evalpool.values import InvalidValue

from .errors import ModelFetchError
from .policy import FetchLimits, FetchPolicy
from .progress import Progress
from .sources import split_https_url

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")


class _TryAgain(Exception):
    """The attempt broke off in a way that another one may not."""


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
        progress: Called with the bytes done and the total.
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
    failures = 0
    with _transport(policy) as transport:
        while True:
            before = transfer.done
            try:
                transfer.attempt(transport)
                break
            except (_TryAgain, httpx.TransportError) as error:
                failures = 0 if transfer.done > before else failures + 1
                if failures >= limits.attempts:
                    raise ModelFetchError(
                        f"{name} could not be fetched: {_reason(error)}"
                    ) from error
                time.sleep(limits.retry_seconds * 2 ** max(failures - 1, 0))
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise ModelFetchError(f"{name} could not be fetched: {_reason(error)}") from error
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
        self._deadline = time.monotonic() + limits.total_seconds
        self._validator = self._remembered_validator()
        self.done = destination.stat().st_size if self._validator else 0

    def attempt(self, transport: httpx.BaseTransport) -> None:
        """Get what is missing; `done` tells how far it came when this raises."""
        self._check_time()
        hop = _Hop(self._start, self._token)
        for _ in range(self._limits.redirects + 1):
            with self._request(transport, hop) as response:
                if response.status_code not in _REDIRECTS:
                    self._receive(response)
                    return
                hop = self._redirect(hop, response)
        raise ModelFetchError(f"{self._name} redirects more than {self._limits.redirects} times")

    def finish(self) -> None:
        """Forget what was kept for a continuation."""
        self._origin.unlink(missing_ok=True)

    @contextmanager
    def _request(self, transport: httpx.BaseTransport, hop: _Hop) -> Iterator[httpx.Response]:
        headers = {
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
        timeout = httpx.Timeout(self._limits.idle_seconds, connect=self._limits.connect_seconds)
        connection_error: httpx.TransportError | None = None
        for host in self._hosts(hop.url):
            request = httpx.Request(
                "GET",
                httpx.URL(hop.url.geturl()).copy_with(host=host),
                headers=headers,
                extensions={
                    "timeout": timeout.as_dict(),
                    # The certificate is checked against the name, not the address connected to.
                    "sni_hostname": hop.url.hostname or "",
                },
            )
            try:
                response = transport.handle_request(request)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                connection_error = error
                continue
            response.request = request
            try:
                yield response
            finally:
                response.close()
            return
        raise connection_error or httpx.ConnectError("the host has no address")

    def _hosts(self, url: SplitResult) -> list[str]:
        """The addresses to connect to, each checked; they are what is then connected to.

        Resolving and checking first and connecting by name after would let a name server give
        another answer the second time.
        """
        host = url.hostname or ""
        try:
            literal = ipaddress.ip_address(host)
        except ValueError:
            literal = None
        if self._policy.proxy is not None and literal is None:
            return [host]
        if literal is not None:
            addresses = [literal]
        else:
            try:
                found = socket.getaddrinfo(host, url.port or 443, type=socket.SOCK_STREAM)
            except (OSError, UnicodeError) as error:
                raise _TryAgain(f"the host {host} could not be resolved") from error
            addresses = [ipaddress.ip_address(str(entry[4][0]).split("%")[0]) for entry in found]
        if not self._policy.private_addresses:
            for address in addresses:
                if not is_public(address):
                    raise ModelFetchError(
                        f"{self._name} could not be fetched: {host} has the address {address}, "
                        "which is not public; the operator can allow private addresses"
                    )
        return list(dict.fromkeys(str(address) for address in addresses))

    def _redirect(self, hop: _Hop, response: httpx.Response) -> _Hop:
        location = response.headers.get("location", "")
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

    def _receive(self, response: httpx.Response) -> None:
        status = response.status_code
        if status == 416 and self.done:
            if response.headers.get("content-range") == f"bytes */{self.done}":
                return
            # What is here is longer than what is there: it belongs to something else.
            self._begin(None)
            raise _TryAgain("the server refused to continue the download")
        if status in _TRANSIENT:
            raise _TryAgain(f"the server answers with status {status}")
        if status not in (200, 206):
            raise ModelFetchError(f"{self._name} could not be fetched: {_refusal(status)}")
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise ModelFetchError(
                f"{self._name} could not be fetched: the server compresses, which was not asked for"
            )
        length = _whole_number(response.headers.get("content-length"))
        if status == 206:
            self._check_range(response.headers.get("content-range", ""))
        else:
            self._begin(_strong_validator(response))
        total = None if length is None else self.done + length
        if total is not None and total > self._limits.max_bytes:
            raise ModelFetchError(
                f"{self._name} has {total} bytes; at most {self._limits.max_bytes} are allowed"
            )
        with self._destination.open("r+b") as file:
            file.seek(self.done)
            file.truncate()
            for chunk in response.iter_raw():
                if self.done + len(chunk) > self._limits.max_bytes:
                    raise ModelFetchError(
                        f"{self._name} is longer than the {self._limits.max_bytes} bytes allowed"
                    )
                self._check_time()
                file.write(chunk)
                self.done += len(chunk)
                self._progress(self.done, total)

    def _check_time(self) -> None:
        if time.monotonic() > self._deadline:
            raise ModelFetchError(
                f"{self._name} could not be fetched: it took longer than "
                f"{self._limits.total_seconds:.0f} seconds"
            )

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


def is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Tell whether an address is one of the public internet.

    An IPv6 address that carries an IPv4 one (mapped, 6to4, Teredo, NAT64) is judged by both.
    """
    if isinstance(address, ipaddress.IPv6Address):
        inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        if address in ipaddress.ip_network("64:ff9b::/96"):
            inner.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if any(each is not None and not is_public(each) for each in inner):
            return False
        if address.ipv4_mapped is not None:
            return True
        if address.is_site_local:
            return False
    return address.is_global and not address.is_multicast


def _transport(policy: FetchPolicy) -> httpx.HTTPTransport:
    # No client around it: its cookies and its own reading of redirects are not wanted. The
    # environment's proxies and netrc count only through the policy.
    return httpx.HTTPTransport(
        verify=policy.certificates or httpx.create_ssl_context(),
        trust_env=False,
        proxy=None if policy.proxy is None else httpx.Proxy(policy.proxy),
    )


def _split(url: str) -> SplitResult:
    try:
        return split_https_url(url)
    except InvalidValue as error:
        raise ModelFetchError(str(error)) from error


def _strong_validator(response: httpx.Response) -> str | None:
    """The entity tag, if a continuation can rely on it (RFC 9110, section 13.1.5)."""
    tag = response.headers.get("etag")
    if tag is None or tag.startswith("W/") or response.headers.get("accept-ranges") == "none":
        return None
    return str(tag)


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
        case _TryAgain():
            return str(error)
        case httpx.ConnectTimeout() | httpx.PoolTimeout():
            return "no connection in time"
        case httpx.ConnectError():
            return f"no connection ({error})"
        case httpx.TimeoutException():
            return "the server sent nothing for too long"
    return f"the connection broke off ({error})"
