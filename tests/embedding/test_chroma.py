"""A Chroma server that is away, slow, somebody else's too, or behind a gate."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from evalpool_embedding.chroma import ChromaServer, parse_header
from evalpool_embedding.vectors import VectorIndex
from evalpool_runtime.errors import Unavailable
from tests.embedding.chroma_process import ChromaProcess

ONE = np.eye(1, 8, dtype=np.float32)


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[ChromaProcess]:
    """A server that is this test's to kill."""
    server = ChromaProcess(tmp_path / "own")
    yield server
    server.kill()


def test_a_server_that_is_away_is_unavailable_and_used_when_it_is_there(
    own_server: ChromaProcess,
) -> None:
    index = VectorIndex(ChromaServer(own_server.endpoint, "me"))
    with pytest.raises(Unavailable, match="Chroma server is out of reach; try again") as raised:
        index.put("set", 0, ONE, [{}])
    assert raised.value.retry_after == 1.0

    own_server.start()
    index.put("set", 0, ONE, [{}])
    own_server.kill()
    for work in (index.names, lambda: index.count("set"), lambda: index.drop("set")):
        with pytest.raises(Unavailable):
            work()

    own_server.start()
    assert index.names() == {"set"}
    index.close()


def test_a_server_that_does_not_answer_is_given_up(own_server: ChromaProcess) -> None:
    own_server.start()
    index = VectorIndex(ChromaServer(own_server.endpoint, "me", seconds=0.5))
    fresh = VectorIndex(ChromaServer(own_server.endpoint, "me", seconds=0.5))
    index.put("set", 0, ONE, [{}])

    own_server.freeze()
    for each in (index, fresh):
        with pytest.raises(Unavailable):
            each.nearest("set", ONE[0], 1, {})

    own_server.thaw()
    for each in (index, fresh):
        assert each.nearest("set", ONE[0], 1, {})[0].index == 0
        each.close()


def test_two_services_on_one_server_do_not_see_each_others_collections(
    chroma_server: ChromaProcess,
) -> None:
    mine, theirs = (
        VectorIndex(ChromaServer(chroma_server.endpoint, owner)) for owner in ("mine", "theirs")
    )
    mine.put("set", 0, np.repeat(ONE, 2, axis=0), [{}] * 2)
    theirs.put("set", 0, np.repeat(ONE, 5, axis=0), [{}] * 5)
    theirs.put("other", 0, ONE, [{}])

    assert (mine.count("set"), theirs.count("set")) == (2, 5)
    assert mine.names() == {"set"}
    mine.drop("set")
    mine.drop("other")
    assert theirs.names() == {"set", "other"}
    for index in (mine, theirs):
        index.close()


class Gate(BaseHTTPRequestHandler):
    """What stands before a server: without its header nobody gets through."""

    seen: list[str | None]
    status: int

    def do_GET(self) -> None:
        self.seen.append(self.headers["X-Chroma-Token"])
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(b"not for you")

    def log_message(self, *_arguments: object) -> None:
        """Not in the tests' output."""


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
def test_a_server_that_refuses_is_unavailable_and_was_given_the_header(status: int) -> None:
    seen: list[str | None] = []
    handler = type("Handler", (Gate,), {"seen": seen, "status": status})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as gate:
        thread = Thread(target=gate.serve_forever)
        thread.start()
        endpoint = f"127.0.0.1:{gate.server_port}"
        index = VectorIndex(ChromaServer(endpoint, "me", header="x-chroma-token: secret"))
        try:
            with pytest.raises(Unavailable):
                index.count("set")
        finally:
            index.close()
            gate.shutdown()
            thread.join()
    assert seen == ["secret"]


def test_a_header_has_a_name_and_a_value() -> None:
    assert parse_header("Authorization: Bearer a:b") == ("Authorization", "Bearer a:b")


@pytest.mark.parametrize("text", ["x", "x:", ": y", "a b: c", "x: y\nz: w", "x: é"])
def test_what_is_no_header_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="name: value"):
        parse_header(text)
