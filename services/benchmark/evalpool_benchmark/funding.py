"""What a transfer to the benchmark service asks for, read from its tags.

Everything is judged by the transfer alone, at the transfer's own time, so that reading it again
gives the same answer however late. What needs other knowledge (is there such a dataset, is the pool
still open) is decided by whoever has it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from fractions import Fraction
from typing import TypeVar

import isodate  # type: ignore[import-untyped]

from evalpool.common.v1.error_reason_pb2 import ErrorReason
from evalpool.values import (
    InvalidValue,
    Tag,
    parse_dataset_id,
    parse_integer,
    parse_text,
    parse_transfer_id,
)
from evalpool_benchmark.allocation import RULES, TIE_RULES
from evalpool_runtime.errors import reason_name, reasons

T = TypeVar("T")

DEFAULT_DURATION = "P30D"
DEFAULT_GRACE = timedelta(hours=24)
MAX_GRACE = timedelta(days=7)
MAX_DURATION = timedelta(days=5 * 366)
"""The longest time from a transfer to its pool's end: a slip must not lock money away for ever."""
MAX_TITLE = 200
MAX_ENTRIES_PER_DAY = 1_000_000
EVALUATORS = ("loglikelihood", "letter", "exact_match", "judge")

_TAG_NAMES = (
    "X-Dataset",
    "X-Allocation",
    "X-Title",
    "X-Starts-At",
    "X-Ends-At",
    "X-Duration",
    "X-Minimum-Score",
    "X-Tie-Rule",
    "X-Max-Entries-Per-Day",
    "X-Grace",
    "X-Evaluator",
    "X-Pool",
)
_KNOWN = {name.lower(): name for name in _TAG_NAMES}

_RFC_3339_UTC = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt](\d{2}:\d{2}:\d{2}(?:\.\d{1,9})?)(?:[Zz]|[+-]00:00)", re.ASCII
)
_ISO_8601_DURATION = re.compile(
    r"P(?=[\dT])(\d{1,6}Y)?(\d{1,6}M)?(\d{1,6}W)?(\d{1,6}D)?"
    r"(T(?=\d)(\d{1,9}H)?(\d{1,9}M)?(\d{1,9}([.,]\d{1,6})?S)?)?",
    re.ASCII,
)
_DECIMAL = re.compile(r"\d{1,9}(\.\d{1,18})?", re.ASCII)
_FRACTION = re.compile(r"\d{1,18}/\d{1,18}", re.ASCII)
_COUNT = re.compile(r"\d{1,9}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Credit:
    """Units that came in.

    Attributes:
        transfer: The transfer's id.
        payer: Who paid; empty for minted units.
        quantity: Units.
        tags: The tags that the payer sent.
        time: When the ledger committed it.
        sequence: Its number on the ledger.
    """

    transfer: str
    payer: str
    quantity: int
    tags: tuple[Tag, ...]
    time: datetime
    sequence: int


class FundingState(StrEnum):
    """What became of a credit."""

    CREATED = "created"
    ADDED = "added"
    REFUNDED = "refunded"
    KEPT = "kept"
    """Minted units have no payer to go back to: they stay on the account, and in view."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A credit that cannot be used, and why.

    Attributes:
        reason: One sentence that names the tag and the remedy.
        reason_code: The name of an error reason.
    """

    reason: str
    reason_code: str

    @classmethod
    def because(cls, code: ErrorReason.ValueType, reason: str) -> Refusal:
        """A refusal by an error reason."""
        return cls(reason, reason_name(code))


@dataclass(frozen=True, slots=True)
class CreatePool:
    """A credit that asks for a new pool.

    Attributes:
        dataset: The dataset's id.
        allocation: The allocation rule's name.
        title: The title; empty for the dataset's own.
        start_time: When it opens: never before the transfer.
        end_time: When it closes.
        grace: What work in flight gets after the end.
        minimum_score: As written; empty where there is none.
        tie_rule: The tie rule's name.
        max_entries_per_day: 0 where there is no limit.
        evaluator: Its name; empty for the dataset's default.
    """

    dataset: str
    allocation: str
    title: str
    start_time: datetime
    end_time: datetime
    grace: timedelta
    minimum_score: str
    tie_rule: str
    max_entries_per_day: int
    evaluator: str


@dataclass(frozen=True, slots=True)
class TopUp:
    """A credit that adds to a pool."""

    pool: str


def read_request(credit: Credit) -> CreatePool | TopUp | Refusal:
    """What a credit asks for.

    Returns:
        The request, or a refusal that names the first tag in violation.
    """
    values: dict[str, str] = {}
    for tag in credit.tags:
        if not tag.key.startswith("x-"):
            continue
        name = _KNOWN.get(tag.key)
        if name is None:
            return _invalid(
                f"{tag.name}: it is not known here; use only {', '.join(_TAG_NAMES)}, or a name "
                "without X- for tags of your own."
            )
        if name in values:
            return _invalid(f"{name}: it comes twice; send it once.")
        values[name] = tag.value
    try:
        return _top_up(values) if "X-Pool" in values else _create(values, credit.time)
    except _Refused as refused:
        return refused.refusal


def parse_score(text: str) -> Fraction:
    """Parse a minimum score, an exact decimal ("0.4") or fraction ("1/3") from 0 to below 1.

    Raises:
        InvalidValue: The text is anything else. Nothing lies above a score of 1.
    """
    if not (_DECIMAL.fullmatch(text) or _FRACTION.fullmatch(text)):
        raise InvalidValue('it is no score; give a decimal such as "0.4" or a fraction as "1/3"')
    try:
        score = Fraction(text)
    except ZeroDivisionError:
        raise InvalidValue("its denominator is 0; give another") from None
    if score >= 1:
        raise InvalidValue("no score lies above it; give one from 0 to below 1")
    return score


def parse_moment(text: str) -> datetime:
    """Parse a moment in RFC 3339, in UTC.

    Raises:
        InvalidValue: The text is anything else, or no such moment exists.
    """
    match = _RFC_3339_UTC.fullmatch(text)
    if not match:
        raise InvalidValue("it is no time in RFC 3339 and UTC, such as 2026-12-31T18:00:00Z")
    try:
        return datetime.fromisoformat(f"{match[1]}T{match[2]}+00:00")
    except ValueError:
        raise InvalidValue("there is no such time; give one as 2026-12-31T18:00:00Z") from None


def parse_span(text: str, start: datetime) -> timedelta:
    """Parse a duration in ISO 8601, as it is from a moment on (months differ in length).

    Raises:
        InvalidValue: The text is anything else, or reaches past the calendar's end.
    """
    if not _ISO_8601_DURATION.fullmatch(text):
        raise InvalidValue("it is no duration in ISO 8601, such as P30D or PT12H")
    try:
        end: datetime = start + isodate.parse_duration(text)
        return end - start
    except (OverflowError, ValueError):
        raise InvalidValue("it reaches past the calendar's end; give a shorter one") from None


class _Refused(Exception):
    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal
        super().__init__(refusal.reason)


def _create(values: dict[str, str], paid: datetime) -> CreatePool:
    if "X-Dataset" not in values:
        raise _Refused(
            _invalid("X-Dataset: it is missing; name the dataset, or a pool to add to with X-Pool.")
        )
    dataset = _parse("X-Dataset", lambda: parse_dataset_id(values["X-Dataset"]))
    if "X-Allocation" not in values:
        raise _Refused(_invalid(f"X-Allocation: it is missing; give one of {', '.join(RULES)}."))
    allocation = values["X-Allocation"]
    if allocation not in RULES:
        raise _Refused(
            Refusal.because(
                reasons.ERROR_REASON_UNKNOWN_ALLOCATION,
                f"X-Allocation: it names no rule; give one of {', '.join(RULES)}.",
            )
        )
    start, end = _times(values, paid)
    return CreatePool(
        dataset=dataset,
        allocation=allocation,
        title=_parse("X-Title", lambda: parse_text(values.get("X-Title", ""), at_most=MAX_TITLE)),
        start_time=start,
        end_time=end,
        grace=_grace(values, end),
        minimum_score=_minimum_score(values),
        tie_rule=_one_of("X-Tie-Rule", values.get("X-Tie-Rule", "earliest"), tuple(TIE_RULES)),
        max_entries_per_day=_max_entries(values),
        evaluator=(
            _one_of("X-Evaluator", values["X-Evaluator"], EVALUATORS)
            if "X-Evaluator" in values
            else ""
        ),
    )


def _top_up(values: dict[str, str]) -> TopUp:
    for name in values:
        if name != "X-Pool":
            raise _Refused(
                _invalid(
                    f"X-Pool: it adds to a pool as it is, so {name} cannot go with it; send one."
                )
            )
    return TopUp(_parse("X-Pool", lambda: parse_transfer_id(values["X-Pool"])))


def _times(values: dict[str, str], paid: datetime) -> tuple[datetime, datetime]:
    if "X-Ends-At" in values and "X-Duration" in values:
        raise _Refused(_invalid("X-Ends-At: X-Duration names the end as well; send one of them."))
    start = paid
    if "X-Starts-At" in values:
        # A start that has passed means now: the money arrived no earlier.
        start = max(paid, _parse("X-Starts-At", lambda: parse_moment(values["X-Starts-At"])))
    if "X-Ends-At" in values:
        name = "X-Ends-At"
        end = _parse(name, lambda: parse_moment(values[name]))
        if end <= paid:
            raise _Refused(
                _invalid(
                    f"X-Ends-At: it was past when the money came, {paid:%Y-%m-%dT%H:%M:%SZ}; "
                    "give a later time."
                )
            )
    else:
        name = "X-Duration"
        text = values.get(name, DEFAULT_DURATION)
        end = start + _parse(name, lambda: parse_span(text, start))
    if start - paid > MAX_DURATION:
        raise _Refused(
            _invalid("X-Starts-At: it is more than five years off; give an earlier time.")
        )
    if end <= start:
        raise _Refused(
            _invalid(f"{name}: it puts the end no later than the start; give a later end.")
        )
    if end - paid > MAX_DURATION:
        if name not in values:
            # The default duration is short: it is the start that is far off.
            name = "X-Starts-At"
        raise _Refused(
            _invalid(f"{name}: it puts the end more than five years off; give an earlier one.")
        )
    return start, end


def _grace(values: dict[str, str], end: datetime) -> timedelta:
    if "X-Grace" not in values:
        return DEFAULT_GRACE
    grace = _parse("X-Grace", lambda: parse_span(values["X-Grace"], end))
    if grace > MAX_GRACE:
        raise _Refused(_invalid("X-Grace: it is longer than seven days; give P7D or less."))
    return grace


def _minimum_score(values: dict[str, str]) -> str:
    if "X-Minimum-Score" not in values:
        return ""
    text = values["X-Minimum-Score"]
    _parse("X-Minimum-Score", lambda: parse_score(text))
    return text


def _max_entries(values: dict[str, str]) -> int:
    name = "X-Max-Entries-Per-Day"
    if name not in values:
        return 0
    text = values[name]
    if not _COUNT.fullmatch(text):
        raise _Refused(_invalid(f'{name}: it is no whole number; give one such as "3".'))
    return _parse(name, lambda: parse_integer(int(text), at_least=1, at_most=MAX_ENTRIES_PER_DAY))


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise _Refused(_invalid(f"{name}: it is none of {', '.join(allowed)}; give one of them."))
    return value


def _parse(name: str, parser: Callable[[], T]) -> T:
    try:
        return parser()
    except InvalidValue as error:
        raise _Refused(_invalid(f"{name}: {error}.")) from None


def _invalid(reason: str) -> Refusal:
    return Refusal.because(reasons.ERROR_REASON_INVALID_TAG, reason)
