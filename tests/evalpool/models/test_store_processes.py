"""One store, several processes, and processes that die."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from evalpool.models import FetchPolicy, ModelInUse, ModelStore, StoreFull, parse_source, pull
from tests.evalpool.models.site import Handler, Site, serving

A, B = b"a" * 100, b"b" * 100
DIGEST_A = hashlib.sha256(A).hexdigest()
DIGEST_B = hashlib.sha256(B).hexdigest()


@contextmanager
def other_process(store: ModelStore, body: str) -> Iterator[subprocess.Popen[str]]:
    """Run code with `store` in another process; it prints "ready" and waits for a line."""
    code = "\n".join(
        [
            "import sys",
            "from pathlib import Path",
            "from evalpool.models import ModelStore",
            "store = ModelStore(Path(sys.argv[1]), capacity_bytes=250)",
            "def wait():",
            "    print('ready', flush=True)",
            "    sys.stdin.readline()",
            textwrap.dedent(body),
        ]
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(store.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def small(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "store", capacity_bytes=250)


PIN = f"""
with store.pinned("{DIGEST_A}"):
    wait()
"""

UPLOAD = f"""
upload = store.begin_upload("{DIGEST_A}", 100)
upload.write(b"a" * 40)
wait()
"""

PUT = """
def content():
    yield b"a" * 40
    wait()
store.put_stream(content())
"""


COMMIT = f"""
import os, signal
Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
upload = store.begin_upload("{DIGEST_A}", 100)
upload.write(b"a" * 100)
wait()
upload.commit()
"""


def test_what_another_process_uses_is_neither_evicted_nor_removed(small: ModelStore) -> None:
    small.put_stream([A])
    small.put_stream([B])
    with other_process(small, PIN):
        with pytest.raises(ModelInUse):
            small.remove(DIGEST_A)
        small.put_stream([b"c" * 100])
        assert small.has(DIGEST_A)
        assert not small.has(DIGEST_B)
        with pytest.raises(StoreFull):
            small.put_stream([b"d" * 200])


def test_a_killed_process_pins_nothing(small: ModelStore) -> None:
    small.put_stream([A])
    with other_process(small, PIN) as process:
        process.kill()
        process.wait()
        small.remove(DIGEST_A)


def test_a_killed_upload_goes_on_in_another_process(small: ModelStore) -> None:
    with other_process(small, UPLOAD) as process:
        with pytest.raises(ModelInUse):
            small.begin_upload(DIGEST_A, 100)
        process.kill()
        process.wait()
        with small.begin_upload(DIGEST_A, 100) as upload:
            assert upload.offset == 40
            upload.write(A[40:])
            upload.commit()
    assert small.path(DIGEST_A).read_bytes() == A


def test_an_upload_that_was_killed_right_before_its_move_goes_on(small: ModelStore) -> None:
    with other_process(small, COMMIT) as process:
        print(file=process.stdin, flush=True)
        process.wait()
    (content,) = (small.root / "partial").glob("*/content")
    assert content.stat().st_mode & stat.S_IWUSR, "its owner may write to it"
    with small.begin_upload(DIGEST_A, 100) as upload:
        assert upload.offset == 100
        upload.commit()
    assert small.path(DIGEST_A).read_bytes() == A


def test_what_a_killed_process_was_putting_is_cleaned_away_and_only_then(
    small: ModelStore,
) -> None:
    with other_process(small, PUT) as process:
        small.clean()
        assert len(list((small.root / "partial").iterdir())) == 1
        process.kill()
        process.wait()
        small.clean()
        assert list((small.root / "partial").iterdir()) == []
    assert small.entries() == ()


def test_two_processes_that_want_one_file_fetch_it_once(
    site: Site, policy: FetchPolicy, small: ModelStore, tmp_path: Path
) -> None:
    """The other process holds the fetch's lock; this one waits, then finds the file there."""
    body = f"""
    with store.fetching("{DIGEST_A}"):
        wait()
        store.put_stream([b"a" * 100])
    """
    site.answers["/a.gguf"] = serving(A)
    with other_process(small, body) as process:
        assert process.stdin is not None
        told: list[int] = []

        def progress(done: int, total: int | None) -> None:
            if not told:
                print(file=process.stdin, flush=True)
            told.append(done)

        path = pull(
            small,
            [parse_source(f"{site.url}/a.gguf")],
            digest=DIGEST_A,
            policy=policy,
            progress=progress,
        )
    assert told[0] == 0
    assert path.read_bytes() == A
    assert site.requests == []


def test_a_fetch_that_was_killed_goes_on_in_another_process(
    site: Site, policy: FetchPolicy, tmp_path: Path
) -> None:
    store = ModelStore(tmp_path / "store")
    content = os.urandom(100_000)
    digest = hashlib.sha256(content).hexdigest()
    whole = serving(content)

    def half(handler: Handler) -> None:
        handler.start(200, {"Content-Length": str(len(content)), "ETag": '"v1"'})
        handler.wfile.write(content[:60_000])
        handler.wfile.flush()
        site.released.wait()
        handler.close_connection = True

    site.answers["/a.gguf"] = half
    certificate = tmp_path / "site.pem"
    certificate.write_text(
        "".join(
            __import__("ssl").DER_cert_to_PEM_cert(der)
            for der in site.trust.get_ca_certs(binary_form=True)
        )
    )
    body = f"""
    import ssl
    from evalpool.models import FetchPolicy, parse_source, pull
    policy = FetchPolicy(
        private_addresses=True,
        certificates=ssl.create_default_context(cafile={str(certificate)!r}),
    )
    store = ModelStore(store.root)
    def progress(done, total):
        if done == 60_000:
            wait()
    pull(store, [parse_source({site.url + "/a.gguf"!r})], digest={digest!r}, policy=policy,
         progress=progress)
    """
    with other_process(store, body) as process:
        process.kill()
        process.wait()
    site.answers["/a.gguf"] = whole
    path = pull(store, [parse_source(f"{site.url}/a.gguf")], digest=digest, policy=policy)
    assert path.read_bytes() == content
    # What was flushed to the disk before the end is not sent again.
    assert site.ranges("/a.gguf")[0] is None
    first = site.ranges("/a.gguf")[1]
    assert first is not None
    assert first.startswith("bytes=")
