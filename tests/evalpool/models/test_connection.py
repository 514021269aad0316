"""Connections to servers that are not there, hostile, or slow."""

from __future__ import annotations

import base64
import dataclasses
import ipaddress
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from evalpool.models import FetchLimits, FetchPolicy, ModelFetchError, fetch, parse_source
from evalpool.models.connection import is_public
from tests.evalpool.models.proxy import Proxy
from tests.evalpool.models.site import Handler, Site, serving

CONTENT = os.urandom(300_000)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def refusal(url: str, out: Path, policy: FetchPolicy, limits: FetchLimits) -> str:
    with pytest.raises(ModelFetchError) as caught:
        fetch(parse_source(url), out, policy=policy, limits=limits)
    return str(caught.value)


def test_a_server_that_sends_nothing_is_given_up(
    site: Site, policy: FetchPolicy, out: Path
) -> None:
    def silent(handler: Handler) -> None:
        handler.start(200, {"Content-Length": "10"})
        handler.wfile.flush()
        site.released.wait()
        handler.close_connection = True

    site.answers["/a.gguf"] = silent
    limits = FetchLimits(idle_seconds=0.05, attempts=2, retry_seconds=0.0)
    assert "bytes in 0.05 seconds" in refusal(f"{site.url}/a.gguf", out, policy, limits)


def test_a_download_that_takes_too_long_in_all_is_broken_off(
    site: Site, policy: FetchPolicy, out: Path
) -> None:
    site.answers["/a.gguf"] = serving(CONTENT)
    limits = FetchLimits(total_seconds=0.0)
    assert "took longer" in refusal(f"{site.url}/a.gguf", out, policy, limits)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::1]"])
def test_a_private_address_is_refused_unless_allowed(
    host: str, site: Site, policy: FetchPolicy, limits: FetchLimits, out: Path
) -> None:
    site.answers["/a.gguf"] = serving(CONTENT)
    strict = dataclasses.replace(policy, private_addresses=False)
    url = f"https://{host}:{site.port}/a.gguf"
    assert "not public" in refusal(url, out, strict, limits)
    assert site.requests == []


def test_a_server_is_known_by_its_name_though_connected_to_by_its_address(
    site: Site, policy: FetchPolicy, limits: FetchLimits, out: Path
) -> None:
    site.answers["/a.gguf"] = serving(CONTENT)
    fetch(parse_source(f"https://localhost:{site.port}/a.gguf"), out, policy=policy, limits=limits)
    assert site.requests[0][1]["host"] == f"localhost:{site.port}"


def test_a_certificate_that_nobody_vouches_for_is_refused(
    site: Site, policy: FetchPolicy, limits: FetchLimits, out: Path
) -> None:
    site.answers["/a.gguf"] = serving(CONTENT)
    public = dataclasses.replace(policy, certificates=None)
    assert "no connection" in refusal(f"{site.url}/a.gguf", out, public, limits)
    assert site.requests == []


def test_a_server_that_is_not_there_is_told_in_one_sentence(
    site: Site, policy: FetchPolicy, limits: FetchLimits, out: Path
) -> None:
    url = f"{site.url}/a.gguf"
    site.close()
    assert "no connection" in refusal(url, out, policy, limits)


def test_a_proxy_is_not_asked_for_a_private_address(
    site: Site, policy: FetchPolicy, limits: FetchLimits, out: Path
) -> None:
    through = dataclasses.replace(policy, private_addresses=False, proxy=site.url)
    assert "not public" in refusal("https://169.254.169.254/latest", out, through, limits)
    assert site.requests == []


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "0.0.0.0",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fc00::1",
        "fec0::1",
        "ff0e::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "::7f00:1",
        "64:ff9b:1::a00:1",
    ],
)
def test_an_address_that_is_not_of_the_internet_is_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.215.14", "2606:4700:4700::1111", "::ffff:1.1.1.1"]
)
def test_an_address_of_the_internet_is_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@contextmanager
def dripping(first: bytes) -> Iterator[int]:
    """A server without TLS that sends this and then a byte after the other; gives its port."""
    ended = threading.Event()
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while not ended.is_set():
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                try:
                    connection.sendall(first)
                    while not ended.wait(0.01):
                        connection.sendall(b"x")
                except OSError:
                    continue

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        ended.set()
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()


def test_a_handshake_that_never_ends_is_cut_off(out: Path, policy: FetchPolicy) -> None:
    limits = FetchLimits(connect_seconds=0.2, attempts=1)
    # The head of a TLS record of 16 KB, of which a byte comes now and then.
    with dripping(b"\x16\x03\x03\x40\x00") as port:
        assert "no connection" in refusal(f"https://127.0.0.1:{port}/a", out, policy, limits)


@pytest.mark.parametrize("where", ["in its head", "in its body"])
def test_a_server_that_sends_too_little_is_given_up_though_it_never_stops(
    where: str, site: Site, policy: FetchPolicy, out: Path
) -> None:
    def drip(handler: Handler) -> None:
        handler.wfile.write(b'HTTP/1.1 200 OK\r\nETag: "v1"\r\n')
        handler.wfile.write(b"X-Long: " if where == "in its head" else b"\r\n")
        try:
            while not site.released.wait(0.01):
                handler.wfile.write(b"x")
        except OSError:
            handler.close_connection = True

    site.answers["/a.gguf"] = drip
    limits = FetchLimits(idle_seconds=0.1, attempts=2, retry_seconds=0.0)
    assert "bytes in 0.1 seconds" in refusal(f"{site.url}/a.gguf", out, policy, limits)
    assert len(site.requests) == 2


def test_a_download_from_a_silent_server_can_be_cancelled(
    site: Site, policy: FetchPolicy, out: Path
) -> None:
    class Cancelled(Exception):
        pass

    def silent(handler: Handler) -> None:
        site.released.wait()
        handler.close_connection = True

    def cancel(done: int, total: int | None) -> None:
        raise Cancelled

    site.answers["/a.gguf"] = silent
    with pytest.raises(Cancelled):
        fetch(parse_source(f"{site.url}/a.gguf"), out, cancel, policy=policy)


def test_a_name_without_an_address_is_told(
    policy: FetchPolicy, limits: FetchLimits, out: Path
) -> None:
    message = refusal("https://nowhere.invalid/a.gguf", out, policy, limits)
    assert "the host nowhere.invalid could not be resolved" in message


def test_a_proxy_resolves_names_and_gets_its_user_and_password(
    site: Site, policy: FetchPolicy, limits: FetchLimits, out: Path
) -> None:
    site.answers["/a.gguf"] = serving(CONTENT)
    with closing(Proxy()) as proxy:
        through = dataclasses.replace(
            policy, private_addresses=False, proxy=f"http://me:pass%20word@127.0.0.1:{proxy.port}"
        )
        url = f"https://localhost:{site.port}/a.gguf"
        fetch(parse_source(url), out, policy=through, limits=limits)
    assert out.read_bytes() == CONTENT
    authority = "Basic " + base64.b64encode(b"me:pass word").decode()
    assert proxy.requests == [(f"localhost:{site.port}", authority)]
