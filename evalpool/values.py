"""Value types of the contract: what a field may hold, stated and enforced in one place.

Each type has a `parse` that returns the value or raises `InvalidValue` with one sentence that says
what is wrong and what would be right. `Fields` collects the violations of a whole request, so that
a caller learns of all of them at once.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

MAX_QUANTITY = 10**39 - 1
"""The largest quantity: 39 digits."""

MAX_TAGS = 32
MAX_TAG_VALUE_BYTES = 1024

_QUANTITY = re.compile(r"0|[1-9][0-9]{0,38}")
_BASE64URL_43 = re.compile(r"[A-Za-z0-9_-]{43}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_DATASET_ID = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_TAG_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}")


class InvalidValue(ValueError):
    """A text that breaks its type's rule. The message is a sentence without the field's name."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One field that breaks its rule.

    Attributes:
        field: The field's path in the request, as in "transfers[3].quantity".
        description: One sentence that says what is wrong and what would be right.
    """

    field: str
    description: str


class InvalidFields(ValueError):
    """A request that breaks rules; carries every violation."""

    def __init__(self, violations: Iterable[Violation]) -> None:
        self.violations = tuple(violations)
        super().__init__("; ".join(f"{v.field}: {v.description}" for v in self.violations))


def parse_quantity(text: str) -> int:
    """Parse a quantity of whole units, `0|[1-9][0-9]{0,38}`.

    Raises:
        InvalidValue: The text is anything else, such as "1.5", "-3", "1e3", "007" or " 1".
    """
    if not _QUANTITY.fullmatch(text):
        raise InvalidValue(
            f"{_shown(text)} is no quantity; give whole units as 1 to 39 decimal digits without "
            'sign, spaces, exponent or leading zeros, such as "1500"'
        )
    return int(text)


def parse_positive_quantity(text: str) -> int:
    """Parse a quantity that is not zero.

    Raises:
        InvalidValue: The text is no quantity, or is "0".
    """
    quantity = parse_quantity(text)
    if quantity == 0:
        raise InvalidValue('the quantity is zero; give at least "1"')
    return quantity


def parse_address(text: str) -> str:
    """Parse an address: an RFC 7638 thumbprint, 43 characters of canonical base64url.

    Raises:
        InvalidValue: The text is anything else. A last character with stray bits would give one
            address several spellings, so it is refused too.
    """
    if not _is_canonical_base64url_43(text):
        raise InvalidValue(
            f"{_shown(text)} is no address; an address has 43 characters of base64url, as "
            "`evalpool wallet address` prints it"
        )
    return text


def parse_transfer_id(text: str) -> str:
    """Parse the id of a transfer, pool, hold or contribution: 43 characters of base64url.

    Raises:
        InvalidValue: The text is anything else.
    """
    if not _is_canonical_base64url_43(text):
        raise InvalidValue(f"{_shown(text)} is no id; ids have 43 characters of base64url")
    return text


def parse_digest(text: str) -> str:
    """Parse a SHA-256 digest: 64 lower-case hexadecimal digits.

    Raises:
        InvalidValue: The text is anything else.
    """
    if not _DIGEST.fullmatch(text):
        raise InvalidValue(
            f"{_shown(text)} is no digest; give a SHA-256 as 64 lower-case hexadecimal digits"
        )
    return text


def parse_request_id(text: str) -> str:
    """Parse a request id: 1 to 128 characters of `[A-Za-z0-9._:-]`.

    Raises:
        InvalidValue: The text is anything else.
    """
    if not _REQUEST_ID.fullmatch(text):
        raise InvalidValue(
            f"{_shown(text)} is no request id; choose 1 to 128 characters of letters, digits and "
            "._:-, and keep it for repeats"
        )
    return text


def parse_dataset_id(text: str) -> str:
    """Parse a dataset's id: 1 to 63 lower-case letters, digits and inner hyphens.

    Raises:
        InvalidValue: The text is anything else.
    """
    if not _DATASET_ID.fullmatch(text):
        raise InvalidValue(
            f"{_shown(text)} is no dataset id; give 1 to 63 lower-case letters, digits and inner "
            'hyphens, such as "siqa-dev"'
        )
    return text


@dataclass(frozen=True, slots=True)
class Tag:
    """One name and value that travels with a transfer."""

    name: str
    value: str

    @property
    def key(self) -> str:
        """The name as it is compared: without regard to case."""
        return self.name.lower()


def parse_tag(name: str, value: str) -> Tag:
    """Parse a tag.

    Raises:
        InvalidValue: The name or the value breaks its rule.
    """
    if not _TAG_NAME.fullmatch(name):
        raise InvalidValue(
            f"{_shown(name)} is no tag name; give 1 to 64 letters, digits and hyphens, "
            "a letter first"
        )
    if len(value.encode()) > MAX_TAG_VALUE_BYTES:
        raise InvalidValue(
            f"the value of {name} is longer than {MAX_TAG_VALUE_BYTES} bytes; shorten it"
        )
    if any(ord(c) < 32 or ord(c) == 127 for c in value):
        raise InvalidValue(f"the value of {name} has a control character; remove it")
    return Tag(name, value)


def parse_tags(pairs: Iterable[tuple[str, str]]) -> tuple[Tag, ...]:
    """Parse a transfer's tags: at most 32, with names that differ in more than case.

    Raises:
        InvalidValue: A tag breaks its rule, a name comes twice, or there are too many.
    """
    tags = tuple(parse_tag(name, value) for name, value in pairs)
    if len(tags) > MAX_TAGS:
        raise InvalidValue(f"there are {len(tags)} tags; send at most {MAX_TAGS}")
    seen: set[str] = set()
    for tag in tags:
        if tag.key in seen:
            raise InvalidValue(f"the tag {tag.name} comes twice; send it once")
        seen.add(tag.key)
    return tags


def parse_text(text: str, *, at_least: int = 0, at_most: int) -> str:
    """Parse free text of a bounded length in characters, without NUL.

    Raises:
        InvalidValue: The text is too short or too long, or has a NUL character.
    """
    if not at_least <= len(text) <= at_most:
        raise InvalidValue(f"it has {len(text)} characters; give {at_least} to {at_most}")
    if "\0" in text:
        raise InvalidValue("it has a NUL character; remove it")
    return text


def parse_integer(value: int, *, at_least: int, at_most: int, default: int | None = None) -> int:
    """Parse an integer within bounds; 0 stands for the default where there is one.

    Raises:
        InvalidValue: The number is outside of the bounds.
    """
    if default is not None and value == 0:
        return default
    if not at_least <= value <= at_most:
        raise InvalidValue(f"it is {value}; give {at_least} to {at_most}")
    return value


class Fields:
    """Parses the fields of one request and remembers every violation.

    Example:
        >>> fields = Fields()
        >>> quantity = fields.parse("quantity", parse_positive_quantity, "12")
        >>> fields.check()
    """

    def __init__(self) -> None:
        self._violations: list[Violation] = []

    def parse(self, field: str, parser: Callable[[str], T], text: str) -> T:
        """Parse one text field; a violation is remembered and raised by `check`.

        The value returned for a field in violation must not be used before `check` has been called.
        """
        return self.attempt(field, lambda: parser(text))

    def attempt(self, field: str, parser: Callable[[], T]) -> T:
        """Run a parser for a field; a violation is remembered and raised by `check`."""
        try:
            return parser()
        except InvalidFields as error:
            self._violations.extend(
                Violation(f"{field}.{v.field}", v.description) for v in error.violations
            )
        except InvalidValue as error:
            self._violations.append(Violation(field, str(error)))
        # `check` raises before anybody can use it.
        return None  # type: ignore[return-value]

    def refuse(self, field: str, description: str) -> None:
        """Remember a violation that no parser states."""
        self._violations.append(Violation(field, description))

    @property
    def violations(self) -> tuple[Violation, ...]:
        """The violations so far."""
        return tuple(self._violations)

    def check(self) -> None:
        """Raise if any field so far breaks its rule.

        Raises:
            InvalidFields: With every violation.
        """
        if self._violations:
            raise InvalidFields(self._violations)


def _is_canonical_base64url_43(text: str) -> bool:
    if not _BASE64URL_43.fullmatch(text):
        return False
    try:
        raw = base64.urlsafe_b64decode(text + "=")
    except (binascii.Error, ValueError):
        return False
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode() == text


def _shown(text: str, limit: int = 60) -> str:
    """A text as it appears in an error: quoted, printable, not too long."""
    cut = text if len(text) <= limit else text[:limit] + "…"
    return '"' + "".join(c if c.isprintable() else "�" for c in cut) + '"'
