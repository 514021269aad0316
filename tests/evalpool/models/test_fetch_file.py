"""Fetching from this machine's folders."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from evalpool.models import (
    FetchLimits,
    FetchPolicy,
    ModelFetchError,
    StoreFull,
    fetch,
    parse_source,
)
from evalpool.models.fetch import open_beneath


@pytest.fixture
def allowed(tmp_path: Path) -> Path:
    folder = tmp_path / "allowed"
    folder.mkdir()
    return folder


@pytest.fixture
def policy(allowed: Path) -> FetchPolicy:
    return FetchPolicy(file_roots=(allowed,))


def refusal(path: Path, destination: Path, policy: FetchPolicy | None) -> str:
    with pytest.raises(ModelFetchError) as caught:
        fetch(parse_source(f"file:{path}"), destination, policy=policy)
    return str(caught.value)


def test_a_file_in_an_allowed_folder_is_copied_with_its_progress(
    allowed: Path, policy: FetchPolicy, tmp_path: Path
) -> None:
    (allowed / "sub").mkdir()
    content = os.urandom(2_500_000)
    (allowed / "sub" / "a.gguf").write_bytes(content)
    calls: list[tuple[int, int | None]] = []
    fetch(
        parse_source(f"file:{allowed}/sub/a.gguf"),
        tmp_path / "out",
        lambda done, total: calls.append((done, total)),
        policy=policy,
    )
    assert (tmp_path / "out").read_bytes() == content
    assert calls[-1] == (2_500_000, 2_500_000)
    assert calls == sorted(calls)


def test_no_file_is_allowed_by_default(allowed: Path, tmp_path: Path) -> None:
    (allowed / "a.gguf").write_bytes(b"x")
    refusal(allowed / "a.gguf", tmp_path / "out", None)


def test_a_link_that_leads_out_of_the_folder_is_refused(
    allowed: Path, policy: FetchPolicy, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (allowed / "a.gguf").symlink_to(tmp_path / "secret")
    refusal(allowed / "a.gguf", tmp_path / "out", policy)
    assert not (tmp_path / "out").exists()


def test_a_linked_folder_that_leads_out_is_refused(
    allowed: Path, policy: FetchPolicy, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.gguf").write_bytes(b"secret")
    (allowed / "inner").symlink_to(tmp_path / "other")
    refusal(allowed / "inner" / "a.gguf", tmp_path / "out", policy)


def test_a_link_within_the_folder_is_followed(
    allowed: Path, policy: FetchPolicy, tmp_path: Path
) -> None:
    (allowed / "a.gguf").write_bytes(b"model")
    (allowed / "latest.gguf").symlink_to("a.gguf")
    fetch(parse_source(f"file:{allowed}/latest.gguf"), tmp_path / "out", policy=policy)
    assert (tmp_path / "out").read_bytes() == b"model"


def test_a_folder_whose_name_begins_alike_is_not_the_allowed_one(
    policy: FetchPolicy, tmp_path: Path
) -> None:
    (tmp_path / "allowed-not").mkdir()
    (tmp_path / "allowed-not" / "a.gguf").write_bytes(b"x")
    refusal(tmp_path / "allowed-not" / "a.gguf", tmp_path / "out", policy)


def test_absent_and_not_allowed_get_the_same_answer(policy: FetchPolicy, tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(b"x")
    there = refusal(tmp_path / "there", tmp_path / "out", policy)
    absent = refusal(tmp_path / "gone", tmp_path / "out", policy)
    assert there.replace("there", "gone") == absent.replace("there", "gone")


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_regular_file_is_refused_and_does_not_hang(
    make: object, allowed: Path, policy: FetchPolicy, tmp_path: Path
) -> None:
    make(allowed / "a.gguf")  # type: ignore[operator]
    refusal(allowed / "a.gguf", tmp_path / "out", policy)


def test_a_file_above_the_limit_is_refused(
    allowed: Path, policy: FetchPolicy, tmp_path: Path
) -> None:
    (allowed / "a.gguf").write_bytes(b"x" * 11)
    with pytest.raises(ModelFetchError, match="at most 10"):
        fetch(
            parse_source(f"file:{allowed}/a.gguf"),
            tmp_path / "out",
            policy=policy,
            limits=FetchLimits(max_bytes=10),
        )


def test_a_destination_that_can_not_be_written_is_a_fetch_error(
    allowed: Path, policy: FetchPolicy, tmp_path: Path
) -> None:
    (allowed / "a.gguf").write_bytes(b"x")
    assert "could not be fetched" in refusal(allowed / "a.gguf", tmp_path / "no" / "folder", policy)


@pytest.mark.parametrize("put_in_between", ["inner", "inner/a.gguf"])
def test_a_link_that_was_put_in_after_the_check_is_not_followed(
    put_in_between: str, allowed: Path, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.gguf").write_bytes(b"secret")
    place = allowed / put_in_between
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(tmp_path / "other" / place.relative_to(allowed / "inner"))
    with pytest.raises(OSError, match=r"inner|a\.gguf"):
        open_beneath(allowed, Path("inner/a.gguf"))


def test_a_full_disk_is_told_as_such(allowed: Path, policy: FetchPolicy, tmp_path: Path) -> None:
    (allowed / "a.gguf").write_bytes(b"model")
    (tmp_path / "out").symlink_to("/dev/full")
    with pytest.raises(StoreFull, match=f"the disk of {tmp_path} has no room"):
        fetch(parse_source(f"file:{allowed}/a.gguf"), tmp_path / "out", policy=policy)
