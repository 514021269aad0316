"""Text is given out in whole characters and never holds a part of a stop text."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from evalpool_worker.engine.text_stream import TextStream


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


@given(st.text(), st.lists(st.integers(0, 1000)))
def test_the_pieces_join_to_the_text_however_it_is_cut(text: str, places: list[int]) -> None:
    stream = TextStream()
    pieces = [stream.feed(part) for part in cut(text.encode(), places)]
    assert "".join(pieces) + stream.finish() == text
    assert not stream.stopped


@given(
    st.text(alphabet="ab🙂"),
    st.lists(st.text(alphabet="ab🙂", min_size=1, max_size=4), min_size=1, max_size=3),
    st.lists(st.integers(0, 1000)),
)
def test_the_text_ends_before_the_first_stop_text(
    text: str, stops: list[str], places: list[int]
) -> None:
    stream = TextStream(tuple(stops))
    shown = ""
    for part in cut(text.encode(), places):
        shown += stream.feed(part)
        if stream.stopped:
            break
    shown += stream.finish()
    if stream.stopped:
        assert all(stop not in shown for stop in stops)
        assert any(text.startswith(shown + stop) for stop in stops)
    else:
        assert shown == text
        assert all(stop not in text for stop in stops)


def test_text_that_can_no_longer_be_a_stop_text_comes_at_once() -> None:
    stream = TextStream(("###",))
    assert stream.feed(b"one #") == "one "
    assert stream.feed(b"#") == ""
    assert stream.feed(b" two") == "## two"


def test_a_character_that_is_never_completed_is_dropped() -> None:
    stream = TextStream()
    assert stream.feed("é".encode()[:1]) == ""
    assert stream.finish() == ""


def test_bytes_that_are_no_text_show_as_replacement_characters() -> None:
    assert TextStream().feed(b"a\xffb") == "a\ufffdb"
