"""What holds for the tree as a whole."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PACKAGE_HOST = re.compile(
    r"\bpypi\.(?:org|python\.org)|\bpythonhosted\.org|\bregistry\.npmjs\.|\bdeb\.debian\.org"
    r"|\bcrates\.io|\bproxy\.golang\.org"
)
MACHINE_PATH = re.compile(r"(?<![\w.}$-])/(?:work|root|opt/pypi|tmp|home/\w+|Users/\w+)/[\w.]")
STAMP = re.compile(r"^(?P<name>[a-z][a-z-]*):.*## (?P<help>.+)$", re.MULTILINE)


def tracked_files() -> list[Path]:
    """The files of the tree: committed ones, and new ones that git does not ignore."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def lines_that_match(pattern: re.Pattern[str]) -> list[str]:
    found = []
    for path in tracked_files():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        found += [
            f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
            for number, line in enumerate(text.splitlines(), start=1)
            if pattern.search(line)
        ]
    return found


def test_no_file_names_the_host_of_a_package_index() -> None:
    assert lines_that_match(PACKAGE_HOST) == []


def test_no_file_names_a_path_of_one_machine() -> None:
    assert lines_that_match(MACHINE_PATH) == []


@pytest.mark.parametrize("name", ["build", "server", "dev"])
def test_every_requirement_has_one_version_and_hashes(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.txt").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    assert lines
    loose = [
        line[:80]
        for line in lines
        if not re.match(r"[a-z0-9._-]+==\S+.*--hash=sha256:[0-9a-f]{64}", line)
    ]
    assert loose == []


def test_the_declared_minima_run_the_generated_stubs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = dict(text.split(">=") for text in project["dependencies"])
    messages = (ROOT / "evalpool" / "token" / "v1" / "token_pb2.py").read_text()
    calls = (ROOT / "evalpool" / "token" / "v1" / "token_pb2_grpc.py").read_text()
    protobuf = re.search(r"Domain\.PUBLIC,\s+(\d+),\s+(\d+),\s+(\d+)", messages)
    grpc = re.search(r"GRPC_GENERATED_VERSION = '(.+)'", calls)
    assert protobuf is not None
    assert grpc is not None
    assert declared["protobuf"] == ".".join(protobuf.groups())
    assert declared["grpcio"] == grpc[1]


def test_every_make_target_is_explained_in_the_readme() -> None:
    targets = [match["name"] for match in STAMP.finditer((ROOT / "Makefile").read_text())]
    assert {"setup", "demo", "test", "check", "bench"} <= set(targets)
    readme = (ROOT / "README.md").read_text()
    assert [name for name in targets if f"make {name}" not in readme and name != "help"] == []


def test_the_licence_is_there_in_full() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_every_decision_is_in_the_list() -> None:
    folder = ROOT / "docs" / "decisions"
    listed = set(re.findall(r"\((\d{4}-[a-z0-9-]+\.md)\)", (folder / "README.md").read_text()))
    assert listed == {path.name for path in folder.glob("[0-9]*.md")}


def test_links_between_documents_lead_somewhere() -> None:
    broken = []
    for path in tracked_files():
        if path.suffix != ".md":
            continue
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text()):
            if "://" not in target and not (path.parent / target).exists():
                broken.append(f"{path.relative_to(ROOT)}: {target}")
    assert broken == []
