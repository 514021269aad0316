"""What the documents name exists: commands, settings, headings, and of each service its parts."""

from __future__ import annotations

import importlib
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import evalpool.cli.commands  # noqa: F401 - registers every command
from evalpool.cli.app import app
from evalpool.cli.serving import load_definition
from evalpool.endpoints import PORTS
from tests.project.test_tree import ROOT, tracked_files

DOCUMENTS = [path for path in tracked_files() if path.suffix == ".md"]
WRITTEN_BY_HAND = [path for path in DOCUMENTS if path.name != "settings.md"]
PAGES = {service: ROOT / "docs" / "services" / f"{service}.md" for service in PORTS}

CODE = re.compile(
    r"^```[a-z]*\n(?P<block>.*?)^```$|^    (?! )(?P<line>[^\n]+)$|`(?P<span>[^`\n]+)`",
    re.MULTILINE | re.DOTALL,
)
COMMAND = re.compile(r"(?:^|\$\(|[ ;&|])evalpool((?: [^|)#;&\n]+)+)", re.MULTILINE)
VARIABLE = re.compile(r"\bEVALPOOL_[A-Z][A-Z_]*[A-Z]\b")
PATH = re.compile(r"[a-z_]+(?:[./][A-Za-z_]+)*/?")


def code_of(text: str) -> Iterator[str]:
    """The blocks and spans of code in a document, continued lines joined."""
    for match in CODE.finditer(text):
        yield next(part for part in match.groups() if part).replace("\\\n", " ")


def section(text: str, title: str) -> str:
    """What stands under one of a document's headings, up to the next."""
    return re.split(r"^## ", text.partition(f"## {title}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def first_cells(text: str) -> list[str]:
    """The spans of code in the first column of tables."""
    return [
        span
        for line in text.splitlines()
        if line.startswith("| `")
        for span in re.findall(r"`([^`]+)`", line.split("|")[1])
    ]


@cache
def anchors_of(path: Path) -> frozenset[str]:
    titles = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", title.lower()) for title in titles)
    return frozenset(title.strip().replace(" ", "-") for title in plain)


def unknown_of(words: list[str]) -> str:
    """What of a command line does not exist; empty where all of it does."""
    command: Any = get_command(app)
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        if words[0] not in command.commands:
            return words[0]
        command = command.commands[words.pop(0)]
    known = {name for parameter in command.params for name in parameter.opts} | {"--help"}
    if command.name == "serve" and words and words[0] in PORTS:
        fields = load_definition(words[0]).settings_type.model_fields
        known = {f"--{name.replace('_', '-')}" for name in fields}
    options = [word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)]
    return next((option for option in options if option not in known), "")


@pytest.mark.parametrize("path", WRITTEN_BY_HAND, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_in_a_document_exists_with_its_options(path: Path) -> None:
    wrong = []
    for code in code_of(path.read_text()):
        for match in COMMAND.finditer(code):
            words = shlex.split(match[1].replace("'", " ").replace('"', " "))
            # A column of commands, "serve SERVICE" or "pool add, list" are for readers.
            if all(re.fullmatch(r"[A-Za-z0-9_./$:@=<>,-]+", word) for word in words):
                unknown = unknown_of([word.rstrip(",.") for word in words])
                if unknown:
                    wrong.append(f"evalpool{match[1]}: {unknown}")
    assert wrong == []


def test_every_variable_in_a_document_is_read_somewhere() -> None:
    known = {f"EVALPOOL_{service.upper()}" for service in PORTS}
    for service in PORTS:
        settings = load_definition(service).settings_type
        prefix = settings.model_config["env_prefix"]
        known |= {f"{prefix}{name}".upper() for name in settings.model_fields}
    for source in (ROOT / "evalpool").rglob("*.py"):
        known |= set(re.findall(r"\"(EVALPOOL_[A-Z_]+)\"", source.read_text()))
    named = {
        f"{path.relative_to(ROOT)}: {variable}"
        for path in DOCUMENTS
        for variable in VARIABLE.findall(path.read_text())
        if variable not in known
    }
    assert named == set()


def test_every_heading_that_a_document_points_to_exists() -> None:
    broken = []
    for path in DOCUMENTS:
        for target, anchor in re.findall(r"\]\(([^)#\s]*\.md|)#([^)\s]+)\)", path.read_text()):
            if anchor not in anchors_of((path.parent / target).resolve() if target else path):
                broken.append(f"{path.relative_to(ROOT)}: {target}#{anchor}")
    assert broken == []


@pytest.mark.parametrize("service", PORTS)
def test_a_services_page_has_its_tables_and_no_others(service: str) -> None:
    schema = importlib.import_module(f"evalpool_{service}.schema")

    named = first_cells(section(PAGES[service].read_text(), "Tables"))

    assert sorted(named) == sorted(schema.metadata.tables)


@pytest.mark.parametrize("service", PORTS)
def test_a_services_page_has_its_metrics_and_no_others(service: str) -> None:
    package = ROOT / "services" / service / f"evalpool_{service}"
    sources = [path.read_text() for path in package.glob("*metrics.py")]
    measured = re.findall(r'"(evalpool_[a-z_]+)"', "".join(sources))
    listed = re.findall(r"`(_?[a-z_]+)`", section(PAGES[service].read_text(), "Metrics"))

    named = [name if name[0] != "_" else f"evalpool_{service}{name}" for name in listed]

    assert sorted(named) == sorted(measured)


@pytest.mark.parametrize("service", PORTS)
def test_a_services_page_has_its_loops(service: str) -> None:
    package = ROOT / "services" / service / f"evalpool_{service}"
    source = (package / "service.py").read_text()
    text = PAGES[service].read_text()
    loops = section(text, "Loops") or section(text, "Loops and sweeps")

    named = first_cells(loops)

    assert named
    assert [name for name in named if f'"{name}"' not in source] == []


@pytest.mark.parametrize("service", PORTS)
def test_the_modules_and_tests_that_a_services_page_names_exist(service: str) -> None:
    package = ROOT / "services" / service / f"evalpool_{service}"
    tests = ROOT / "tests" / service
    text = PAGES[service].read_text()
    promises = [line.split("|") for line in section(text, "Promises").splitlines()[3:] if line]

    modules = [
        span
        for cells in promises
        for span in re.findall(r"`([^`]+)`", cells[2])
        if PATH.fullmatch(span)
    ]
    modules += [name for name in first_cells(text) if "/" in name or (package / name).is_dir()]
    named_tests = [
        span.partition("::")[0] for cells in promises for span in re.findall(r"`([^`]+)`", cells[3])
    ]

    assert modules
    assert [name for name in modules if not _is_module(package, name)] == []
    assert named_tests
    assert [name for name in named_tests if not _is_test(tests, name)] == []


def _is_module(package: Path, name: str) -> bool:
    """Whether a name is a module of a package, of the model store, or something in one."""
    if name == "evalpool.models":
        return (ROOT / "evalpool" / "models").is_dir()
    if name in importlib.import_module(f"{package.name}.schema").metadata.tables:
        return True
    parts = name.removesuffix(".py").replace("/", ".").split(".")
    for length in range(len(parts), 0, -1):
        place = package.joinpath(*parts[:length])
        if place.is_dir() or place.with_suffix(".py").is_file():
            rest = parts[length:]
            source = place.with_suffix(".py")
            return not rest or not source.is_file() or rest[0] in source.read_text()
    return False


def _is_test(tests: Path, name: str) -> bool:
    return (ROOT / name).exists() or (tests / name).exists() or bool(list(tests.rglob(name)))
