"""Making, verifying and restoring backups."""

from __future__ import annotations

import hashlib
import json
import resource
import stat
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from evalpool.backup import (
    DATABASES,
    BackupError,
    Manifest,
    make_backup,
    restore_backup,
    verify_backup,
)
from evalpool.backup.manifest import read_manifest
from evalpool.cli.serving import known_revisions
from tests.evalpool.data_directory import FOLDERS, UPLOADED

MOMENT = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
SCHEMAS = {service: known_revisions(service) for service in (*DATABASES, "worker")}


def ignored(done: int, total: int) -> None:
    """Shows nobody how far it is."""


def make(data: Path, target: Path, **others: Any) -> Manifest:
    return make_backup(
        data, target, **{"release": "1.2.3", "now": lambda: MOMENT, "progress": ignored, **others}
    )


def restore(backup: Path, data: Path, **others: Any) -> Manifest:
    return restore_backup(backup, data, **{"schemas": SCHEMAS, "progress": ignored, **others})


def tree(folder: Path) -> dict[str, tuple[int, str]]:
    """Every file's mode and digest."""
    return {
        str(path.relative_to(folder)): (
            stat.S_IMODE(path.stat().st_mode),
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def backup(data: Path, tmp_path: Path) -> Path:
    make(data, tmp_path / "backup")
    return tmp_path / "backup"


@pytest.fixture
def new(tmp_path: Path) -> Path:
    return tmp_path / "new"


def test_it_holds_databases_keys_and_uploaded_models_and_nothing_that_can_be_had_again(
    data: Path, backup: Path
) -> None:
    manifest = read_manifest(backup)
    databases = {f"{name}/{name.partition('-')[0]}.db" for name in FOLDERS}
    keys = {f"keys/{name}.json" for name in (*FOLDERS, "operator")}
    model = hashlib.sha256(UPLOADED).hexdigest()
    uploaded = f"router/repository/sha256/{model[:2]}/{model}"
    assert set(tree(backup)) == {*databases, *keys, uploaded, "manifest.json"}
    assert {part.path for part in manifest.parts} == {*databases, *keys, uploaded}
    assert (manifest.release, manifest.time) == ("1.2.3", MOMENT)
    for part in manifest.parts:
        assert (backup / part.path).stat().st_size == part.size_bytes
        assert tree(backup)[part.path] == (part.mode, part.sha256)
        assert bool(part.schema) == (part.path in databases)
    assert verify_backup(backup, ignored) == manifest
    assert sorted(path.name for path in backup.parent.iterdir()) == ["backup", "data"]


def test_nobody_else_can_read_it(backup: Path) -> None:
    assert stat.S_IMODE(backup.stat().st_mode) == 0o700
    assert {mode for path, (mode, _) in tree(backup).items() if path.startswith("keys/")} == {0o600}


def test_restored_it_is_the_same_with_the_same_modes(backup: Path, new: Path) -> None:
    restored = restore(backup, new)
    assert restored == read_manifest(backup)
    expected = tree(backup)
    del expected["manifest.json"]
    assert tree(new) == expected
    assert stat.S_IMODE(new.stat().st_mode) == 0o700


def test_an_empty_directory_is_restored_into(backup: Path, new: Path) -> None:
    new.mkdir()
    restore(backup, new)
    assert (new / "token" / "token.db").is_file()


def test_how_far_it_is_grows_to_the_whole(data: Path, tmp_path: Path, new: Path) -> None:
    told: list[tuple[int, int]] = []
    manifest = make(data, tmp_path / "backup", progress=lambda *far: told.append(far))
    assert told == sorted(told)
    assert told[-1] == (manifest.size_bytes, manifest.size_bytes)
    told.clear()
    restore(tmp_path / "backup", new, progress=lambda *far: told.append(far))
    assert told == sorted(told)
    assert told[-1] == (2 * manifest.size_bytes, 2 * manifest.size_bytes)


def test_a_repository_elsewhere_is_copied_from_there(
    data: Path, uploaded: Path, tmp_path: Path
) -> None:
    (data / "router" / "repository").rename(tmp_path / "elsewhere")
    make(data, tmp_path / "backup", repository=tmp_path / "elsewhere")
    assert (tmp_path / "backup" / uploaded.relative_to(data)).read_bytes() == UPLOADED


def test_nothing_is_overwritten_by_a_backup(data: Path, backup: Path) -> None:
    before = tree(backup)
    with pytest.raises(BackupError, match="is there already, and nothing is overwritten"):
        make(data, backup)
    assert tree(backup) == before


def test_what_has_come_to_be_at_the_target_meanwhile_is_not_overwritten(
    data: Path, tmp_path: Path
) -> None:
    target = tmp_path / "backup"

    def appear() -> datetime:
        target.mkdir()
        (target / "mine").touch()
        return MOMENT

    with pytest.raises(BackupError, match="has come to be there meanwhile"):
        make(data, target, now=appear)
    assert [path.name for path in target.iterdir()] == ["mine"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backup", "data"]


@pytest.mark.parametrize("missing", ["token/token.db", "benchmark/benchmark.db", "keys/token.json"])
def test_a_data_directory_without_one_of_its_parts_is_refused_by_its_name(
    data: Path, tmp_path: Path, missing: str
) -> None:
    (data / missing).unlink()
    with pytest.raises(BackupError, match=f"{missing} is not there"):
        make(data, tmp_path / "backup")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_lost_upload_is_told_by_its_file(data: Path, uploaded: Path, tmp_path: Path) -> None:
    uploaded.unlink()
    with pytest.raises(BackupError, match=f"{uploaded.name} is missing"):
        make(data, tmp_path / "backup")


def test_a_damaged_upload_is_not_backed_up(data: Path, uploaded: Path, tmp_path: Path) -> None:
    uploaded.chmod(0o644)
    uploaded.write_bytes(UPLOADED.swapcase())
    with pytest.raises(BackupError, match=f"{uploaded.name} is damaged"):
        make(data, tmp_path / "backup")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_damaged_database_is_not_backed_up(data: Path, tmp_path: Path) -> None:
    path = data / "token" / "token.db"
    content = bytearray(path.read_bytes())
    # Of the second page and the third, which hold tables.
    content[4096:12288] = bytes(8192)
    path.write_bytes(content)
    with pytest.raises(BackupError, match=r"token/token\.db is a damaged database"):
        make(data, tmp_path / "backup")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def flip_a_byte(path: Path) -> None:
    path.chmod(0o600)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("part", range(len(FOLDERS) * 2 + 3))
def test_one_changed_byte_of_any_file_is_found_and_told_by_its_name(
    backup: Path, new: Path, part: int
) -> None:
    path = sorted(path for path in backup.rglob("*") if path.is_file())[part]
    flip_a_byte(path)
    with pytest.raises(BackupError, match=f"{path} is damaged"):
        verify_backup(backup, ignored)
    with pytest.raises(BackupError, match=f"{path} is damaged"):
        restore(backup, new)
    assert not new.exists()


def test_every_file_of_a_backup_was_changed_once(backup: Path) -> None:
    assert len(tree(backup)) == len(FOLDERS) * 2 + 3


def test_a_database_that_the_manifest_agrees_with_is_checked_all_the_same(
    data: Path, backup: Path
) -> None:
    path = backup / "token" / "token.db"
    content = bytearray(path.read_bytes())
    content[4096:12288] = bytes(8192)
    path.write_bytes(content)
    manifest = read_manifest(backup)
    forged = [
        {"path": p.path, "size_bytes": p.size_bytes, "sha256": tree(backup)[p.path][1],
         "mode": p.mode, "schema": p.schema}
        for p in manifest.parts
    ]  # fmt: skip
    write_manifest(backup, parts=forged)
    with pytest.raises(BackupError, match=r"token/token\.db is a damaged database"):
        verify_backup(backup, ignored)


def write_manifest(backup: Path, **changed: Any) -> None:
    """Write a manifest that agrees with itself."""
    path = backup / "manifest.json"
    content = {**json.loads(path.read_text())["backup"], **changed}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).hexdigest()
    path.write_text(json.dumps({"sha256": digest, "backup": content}))


@pytest.mark.parametrize(
    "path", ["../outside.json", "/etc/passwd", "keys/../../outside.json", "token/other.db"]
)
def test_a_manifest_that_leads_out_of_the_directory_is_refused(
    backup: Path, new: Path, path: str
) -> None:
    part = {"path": path, "size_bytes": 1, "sha256": "0" * 64, "mode": 0o600, "schema": ""}
    write_manifest(backup, parts=[part])
    with pytest.raises(BackupError, match=f'"{path}" is no file of a data directory'):
        restore(backup, new)


def test_another_format_is_refused_with_the_release_that_reads_it(backup: Path) -> None:
    write_manifest(backup, format=2)
    with pytest.raises(
        BackupError, match=r"the format 2, and this release reads 1; use .* 1\.2\.3"
    ):
        verify_backup(backup, ignored)


def test_tables_of_a_newer_release_are_refused_by_their_service(backup: Path, new: Path) -> None:
    known = {**SCHEMAS, "dataset": frozenset({"0001"})}
    with pytest.raises(
        BackupError,
        match=r"dataset/dataset\.db has tables of the revision \d+, and this release knows 0001 at "
        r"most; install evalpool 1\.2\.3 or newer",
    ):
        restore(backup, new, schemas=known)
    assert not new.exists()


def test_what_is_no_backup_or_was_never_finished_is_refused(
    backup: Path, new: Path, tmp_path: Path
) -> None:
    (backup / "manifest.json").unlink()
    for folder in (backup, tmp_path, tmp_path / "nowhere"):
        with pytest.raises(BackupError, match=r"it is no backup, or one that was never finished"):
            restore(folder, new)
    assert not new.exists()


def test_a_missing_part_is_told_by_its_name(backup: Path) -> None:
    (backup / "keys" / "token.json").unlink()
    with pytest.raises(BackupError, match=r"keys/token\.json is missing in the backup"):
        verify_backup(backup, ignored)


def test_a_directory_that_holds_something_is_not_restored_into(backup: Path, new: Path) -> None:
    new.mkdir()
    (new / "mine").touch()
    with pytest.raises(BackupError, match=f"{new} is not empty, and nothing is overwritten"):
        restore(backup, new)
    with pytest.raises(BackupError, match="mine is no directory"):
        restore(backup, new / "mine")
    assert [path.name for path in new.iterdir()] == ["mine"]


def test_a_directory_that_a_deployment_holds_is_not_restored_into(backup: Path, new: Path) -> None:
    new.mkdir()
    with (
        FileLock(new / "deployment.lock"),
        pytest.raises(BackupError, match=f"a deployment runs on {new}"),
    ):
        restore(backup, new)


def test_a_deployment_that_began_meanwhile_is_left_alone(backup: Path, new: Path) -> None:
    new.mkdir()

    def begin(_done: int, _total: int) -> None:
        (new / "deployment.lock").touch()

    with pytest.raises(BackupError, match="has come to be there meanwhile"):
        restore(backup, new, progress=begin)
    assert [path.name for path in new.iterdir()] == ["deployment.lock"]


def interrupted(_done: int, _total: int) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("after", range(0, 40, 3))
def test_ctrl_c_leaves_nothing_half(data: Path, tmp_path: Path, after: int) -> None:
    target, new = tmp_path / "backup", tmp_path / "new"

    def make_it(progress: Callable[[int, int], None]) -> None:
        make(data, target, progress=progress)

    def restore_it(progress: Callable[[int, int], None]) -> None:
        restore(target, new, progress=progress)

    for act, made in ((make_it, target), (restore_it, new)):
        calls = iter(range(after))

        def stop(done: int, total: int, calls: Any = calls) -> None:
            if next(calls, None) is None:
                interrupted(done, total)

        before = sorted(tmp_path.iterdir())
        try:
            act(stop)
        except KeyboardInterrupt:
            assert sorted(tmp_path.iterdir()) == before
            act(ignored)
        assert made.is_dir()


def test_a_disk_without_room_is_told_and_leaves_nothing(data: Path, tmp_path: Path) -> None:
    # Files may grow to 64 KiB, which SQLite and the kernel tell as they tell a full disk.
    done = subprocess.run(
        [sys.executable, "-m", "evalpool", "backup", str(tmp_path / "backup"), "--data", str(data)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "benchmark.db cannot be copied to" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
