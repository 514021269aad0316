"""Downloads from a real server over TLS."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from evalpool.models import FetchLimits, FetchPolicy, ModelFetchError, fetch, parse_source
from tests.evalpool.models.site import Handler, Site, answering, redirecting, serving

CONTENT = os.urandom(300_000)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def refusal(url: str, out: Path, policy: FetchPolicy, limits: FetchLimits) -> str:
    with pytest.raises(ModelFetchError) as caught:
        fetch(parse_source(url), out, policy=policy, limits=limits)
    return str(caught.value)


def test_a_file_is_downloaded_with_its_progress(
    site: Site, policy: FetchPolicy, limits: FetchLimits, out: Path
) -> None:
    site.answers["/a.gguf"] = serving(CONTENT)
    calls: list[tuple[int, int | None]] = []
    fetch(
        parse_source(f"{site.url}/a.gguf"),
        out,
        lambda done, total: calls.append((done, total)),
        policy=policy,
        limits=limits,
    )
    assert out.read_bytes() == CONTENT
    assert calls[-1] == (len(CONTENT), len(CONTENT))
    assert calls == sorted(calls)
    assert [entry.name for entry in out.parent.iterdir()] == ["out"]


def test_no_content_coding_is_asked_for(
    site: Site, policy: FetchPolicy, limits: FetchLimits, out: Path
) -> None:
    site.answers["/a.gguf"] = serving(CONTENT)
    fetch(parse_source(f"{site.url}/a.gguf"), out, policy=policy, limits=limits)
    assert site.requests[0][1]["accept-encoding"] == "identity"


def test_a_download_that_breaks_off_goes_on_where_it_was(
    site: Site, policy: FetchPolicy, limits: FetchLimits, out: Path
) -> None:
    site.answers["/a.gguf"] = serving(CONTENT, break_after=[100_000, 50_000])
    fetch(parse_source(f"{site.url}/a.gguf"), out, policy=policy, limits=limits)
    assert out.read_bytes() == CONTENT
    assert site.ranges("/a.gguf") == [None, "bytes=100000-", "bytes=150000-"]


def test_a_download_goes_on_in_a_later_call(site: Site, policy: FetchPolicy, out: Path) -> None:
    once = FetchLimits(attempts=1, retry_seconds=0.0)
    site.answers["/a.gguf"] = serving(CONTENT, break_after=[100_000, 0])
    refusal(f"{site.url}/a.gguf", out, policy, once)
    fetch(parse_source(f"{site.url}/a.gguf"), out, policy=policy, limits=once)
    assert out.read_bytes() == CONTENT
    assert site.ranges("/a.gguf")[-1] == "bytes=100000-"


def test_a_file_that_changed_meanwhile_is_taken_from_its_start(
    site: Site, policy: FetchPolicy, out: Path
) -> None:
    once = FetchLimits(attempts=1, retry_seconds=0.0)
    site.answers["/a.gguf"] = serving(CONTENT, etag='"v1"', break_after=[100_000, 0])
    refusal(f"{site.url}/a.gguf", out, policy, once)
    changed = os.urandom(200_000)
    site.answers["/a.gguf"] = serving(changed, etag='"v2"')
    fetch(parse_source(f"{site.url}/a.gguf"), out, policy=policy, limits=once)
    assert out.read_bytes() == changed


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_strong_entity_tag_a_download_starts_over(
    etag: str | None, site: Site, policy: FetchPolicy, limits: FetchLimits, out: Path
) -> None:
    site.answers["/a.gguf"] = serving(CONTENT, etag=etag, break_after=[100_000])
    fetch(parse_source(f"{site.url}/a.gguf"), out, policy=policy, limits=limits)
    assert out.read_bytes() == CONTENT
    assert site.ranges("/a.gguf") == [None, None]


def test_a_part_of_another_url_is_not_continued(site: Site, policy: FetchPolicy, out: Path) -> None:
    once = FetchLimits(attempts=1, retry_seconds=0.0)
    site.answers["/a.gguf"] = serving(CONTENT, break_after=[100_000, 0])
    refusal(f"{site.url}/a.gguf", out, policy, once)
    other = os.urandom(200_000)
    site.answers["/b.gguf"] = serving(other)
    fetch(parse_source(f"{site.url}/b.gguf"), out, policy=policy, limits=once)
    assert out.read_bytes() == other
    assert site.ranges("/b.gguf") == [None]


def test_a_part_that_is_whole_already_is_taken(site: Site, policy: FetchPolicy, out: Path) -> None:
    once = FetchLimits(attempts=1, retry_seconds=0.0)

    def announces_more(handler: Handler) -> None:
        handler.start(200, {"Content-Length": str(len(CONTENT) + 1), "ETag": '"v1"'})
        handler.wfile.write(CONTENT)
        handler.break_off()

    site.answers["/a.gguf"] = announces_more
    refusal(f"{site.url}/a.gguf", out, policy, once)
    site.answers["/a.gguf"] = serving(CONTENT)
    fetch(parse_source(f"{site.url}/a.gguf"), out, policy=policy, limits=once)
    assert out.read_bytes() == CONTENT
    assert site.ranges("/a.gguf")[-1] == f"bytes={len(CONTENT)}-"


def test_a_continuation_at_another_place_is_not_spliced(
    site: Site, policy: FetchPolicy, limits: FetchLimits, out: Path
) -> None:
    whole = serving(CONTENT, break_after=[100_000])

    def answer(handler: Handler) -> None:
        if handler.headers.get("range"):
            handler.start(
                206,
                {"Content-Length": "10", "Content-Range": f"bytes 5-14/{len(CONTENT)}"},
            )
            handler.wfile.write(b"0123456789")
        else:
            whole(handler)

    site.answers["/a.gguf"] = answer
    fetch(parse_source(f"{site.url}/a.gguf"), out, policy=policy, limits=limits)
    assert out.read_bytes() == CONTENT


def test_a_server_that_is_busy_is_asked_again(
    site: Site, policy: FetchPolicy, limits: FetchLimits, out: Path
) -> None:
    whole, busy = serving(CONTENT), [503, 429]

    def answer(handler: Handler) -> None:
        if busy:
            handler.start(busy.pop(), {"Content-Length": "0"})
        else:
            whole(handler)

    site.answers["/a.gguf"] = answer
    fetch(parse_source(f"{site.url}/a.gguf"), out, policy=policy, limits=limits)
    assert out.read_bytes() == CONTENT


def test_a_server_that_stays_busy_is_given_up(
    site: Site, policy: FetchPolicy, limits: FetchLimits, out: Path
) -> None:
    site.answers["/a.gguf"] = answering(503, {})
    assert "status 503" in refusal(f"{site.url}/a.gguf", out, policy, limits)
    assert len(site.requests) == limits.attempts


@pytest.mark.parametrize(
    ("status", "words"), [(404, "no such file"), (403, "refuses access"), (418, "status 418")]
)
def test_a_refusal_is_told_and_not_repeated(
    status: int, words: str, site: Site, policy: FetchPolicy, limits: FetchLimits, out: Path
) -> None:
    site.answers["/a.gguf"] = answering(status, {})
    assert words in refusal(f"{site.url}/a.gguf", out, policy, limits)
    assert len(site.requests) == 1


def test_a_file_announced_above_the_limit_is_not_begun(
    site: Site, policy: FetchPolicy, out: Path
) -> None:
    site.answers["/a.gguf"] = serving(CONTENT)
    limits = FetchLimits(max_bytes=1000)
    assert "at most 1000" in refusal(f"{site.url}/a.gguf", out, policy, limits)
    assert out.stat().st_size == 0


def test_a_file_that_grows_above_the_limit_is_broken_off(
    site: Site, policy: FetchPolicy, out: Path
) -> None:
    def endless(handler: Handler) -> None:
        handler.start(200, {"Connection": "close"})
        try:
            while not site.released.is_set():
                handler.wfile.write(b"x" * 10_000)
        except OSError:
            handler.close_connection = True

    site.answers["/a.gguf"] = endless
    limits = FetchLimits(max_bytes=100_000)
    assert "longer than" in refusal(f"{site.url}/a.gguf", out, policy, limits)
    assert out.stat().st_size <= 100_000


def test_a_compressed_answer_is_refused(
    site: Site, policy: FetchPolicy, limits: FetchLimits, out: Path
) -> None:
    site.answers["/a.gguf"] = answering(200, {"Content-Encoding": "gzip"}, b"bomb")
    assert "compresses" in refusal(f"{site.url}/a.gguf", out, policy, limits)


def test_redirects_are_followed(
    site: Site, policy: FetchPolicy, limits: FetchLimits, out: Path
) -> None:
    site.answers["/a.gguf"] = redirecting("/b.gguf?signed=1", 307)
    site.answers["/b.gguf"] = serving(CONTENT)
    fetch(parse_source(f"{site.url}/a.gguf"), out, policy=policy, limits=limits)
    assert out.read_bytes() == CONTENT


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1/a.gguf",
        "file:///etc/passwd",
        "ftp://127.0.0.1/a.gguf",
        "data:,x",
        "https://user:secret@127.0.0.1/a.gguf",
        "https://[broken/",
    ],
)
def test_a_redirect_to_anything_but_https_is_refused(
    location: str, site: Site, policy: FetchPolicy, limits: FetchLimits, out: Path
) -> None:
    site.answers["/a.gguf"] = redirecting(location)
    assert "redirects to" in refusal(f"{site.url}/a.gguf", out, policy, limits)
    assert len(site.requests) == 1


def test_a_redirect_in_circles_ends(
    site: Site, policy: FetchPolicy, limits: FetchLimits, out: Path
) -> None:
    site.answers["/a.gguf"] = redirecting("/a.gguf")
    assert "more than 5 times" in refusal(f"{site.url}/a.gguf", out, policy, limits)
    assert len(site.requests) == 6


def test_a_cancelled_download_passes_on_what_the_progress_raised(
    site: Site, policy: FetchPolicy, limits: FetchLimits, out: Path
) -> None:
    class Cancelled(Exception):
        pass

    def cancel(done: int, total: int | None) -> None:
        raise Cancelled

    site.answers["/a.gguf"] = serving(CONTENT)
    with pytest.raises(Cancelled):
        fetch(parse_source(f"{site.url}/a.gguf"), out, cancel, policy=policy, limits=limits)
