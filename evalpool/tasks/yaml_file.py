"""Reading a task's YAML: with `include`, and with `!function`, which is only noted.

A file may come from anywhere. PyYAML's safe loader makes nothing but plain values of it; what is
left to fear is size: of files, of includes, and of merge keys (`<<`), which can double what they
merge line by line.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from evalpool.tasks.errors import TaskError

_MAX_FILE_BYTES = 1 << 20
_MAX_FILES = 100


@dataclass(frozen=True, slots=True)
class Function:
    """A Python function that a file names with `!function`.

    Attributes:
        name: As it is written, such as "utils.process_docs".
        source: The Python file that should define it.
    """

    name: str
    source: Path

    def __str__(self) -> str:
        return f"!function {self.name}"


def read_yaml(path: Path) -> dict[str, Any]:
    """A file's fields, over those of what it includes.

    Raises:
        TaskError: It is no YAML, has no fields, is too large, or includes itself.
        OSError: A file cannot be read.
    """
    return _load(path, (), [])


def _load(path: Path, including: tuple[Path, ...], loaded: list[Path]) -> dict[str, Any]:
    path = path.resolve()
    if path in including:
        raise TaskError(f"include: {path.name} includes itself")
    loaded.append(path)
    if len(loaded) > _MAX_FILES:
        raise TaskError(
            f"include: more than {_MAX_FILES} files are included; write out what they say"
        )
    values = _parsed(path)
    included = values.pop("include", None) or ()
    names = (included,) if isinstance(included, str) else included
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise TaskError("include: it names no files; give a file's name or a list of them")
    merged: dict[str, Any] = {}
    for name in names:
        merged |= _load(path.parent / name, (*including, path), loaded)
    return merged | values


def _parsed(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        content = file.read(_MAX_FILE_BYTES + 1)
    if len(content) > _MAX_FILE_BYTES:
        raise TaskError(f"{path.name}: it is larger than {_MAX_FILE_BYTES >> 20} MiB")
    try:
        values = yaml.load(content, Loader=_loader(path.parent))  # noqa: S506 - a safe one
    except TaskError:
        raise
    except (yaml.YAMLError, ValueError) as error:
        # Of dates and numbers that are none, the loader lets Python's own error through.
        raise TaskError(f"{path.name}: it is no YAML: {error}") from error
    except RecursionError as error:
        raise TaskError(f"{path.name}: it is nested too deeply") from error
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise TaskError(f"{path.name}: it has no fields")
    return values


def _loader(folder: Path) -> type[yaml.SafeLoader]:
    class Loader(yaml.SafeLoader):
        """Knows `!function`, and no merge keys."""

        def flatten_mapping(self, node: yaml.MappingNode) -> None:
            for key, _ in node.value:
                if key.tag == "tag:yaml.org,2002:merge":
                    raise TaskError("<<: merge keys are not read; use include, or write it out")

    def function(loader: yaml.SafeLoader, node: yaml.Node) -> Function:
        if not isinstance(node, yaml.ScalarNode):
            raise TaskError("!function: it names no function; write a module and a function")
        name = str(loader.construct_scalar(node))
        module = name.rpartition(".")[0]
        return Function(name, folder / f"{module.replace('.', '/')}.py")

    Loader.add_constructor("!function", function)
    return Loader
