"""Ranks, ties, intervals and eligibility, in exact arithmetic.

An entry's score is its points, of those that the questions answered can give; its merit is score ×
progress, that is points / (done × full marks) × done / total = points / (total × full marks), as a
fraction. Floats appear only where a number is shown. Equal merits are ordered by the earlier join;
ranks are standard competition ranks (1224): one more than the number of better entries.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import sqrt

from evalpool_benchmark.entry import IN_FLIGHT, Entry, EntryState

Z_95 = 1.959963984540054
"""The 97.5 % point of the normal distribution: two-sided 95 %."""


@dataclass(frozen=True, slots=True)
class Place:
    """One entry's place.

    Attributes:
        entry: The entry.
        rank: From 1; 0 where the entry has no score to rank by.
        merit: score × progress; None where the entry has no score to rank by.
        tied_with: Ids of the entries with the same merit.
        ineligible_reason: Why it takes no part in the rewards; empty where it does.
    """

    entry: Entry
    rank: int
    merit: Fraction | None
    tied_with: tuple[str, ...]
    ineligible_reason: str

    @property
    def is_eligible(self) -> bool:
        """True where the entry takes part in the rewards."""
        return not self.ineligible_reason


def merit(entry: Entry) -> Fraction | None:
    """Score × progress as an exact fraction, or None where there is no score to rank by.

    Entries that failed, were withdrawn or were disqualified have none, and neither has one without
    an answered question, so that no entry ranks by a score that nobody has measured. An entry that
    the pool's end cut off keeps the rank that it had reached.
    """
    ranks = entry.state is EntryState.SCORED or entry.state in IN_FLIGHT or entry.is_cut_off
    if not ranks or entry.done == 0 or entry.total == 0:
        return None
    return entry.score * Fraction(entry.done, entry.total)


def rank(entries: Iterable[Entry], minimum_score: Fraction | None = None) -> tuple[Place, ...]:
    """Order a pool's entries, best first; those without a score come last, in order of joining.

    Args:
        entries: The pool's entries, each in one subject only.
        minimum_score: What an eligible entry's score must lie above.

    Returns:
        One place an entry.
    """
    merits = [(entry, merit(entry)) for entry in entries]
    ranked = sorted(
        ((entry, value) for entry, value in merits if value is not None),
        key=lambda pair: (-pair[1], pair[0].join_order),
    )
    unranked = sorted(
        (entry for entry, value in merits if value is None), key=lambda entry: entry.join_order
    )
    tied: dict[Fraction, list[str]] = defaultdict(list)
    first_place: dict[Fraction, int] = {}
    for position, (entry, value) in enumerate(ranked, start=1):
        tied[value].append(entry.id)
        first_place.setdefault(value, position)
    places: list[Place] = []
    has_eligible_entry: set[str] = set()
    for entry, value in ranked:
        reason = _ineligible(entry, minimum_score)
        if not reason and entry.participant in has_eligible_entry:
            reason = "Not the participant's best entry."
        if not reason:
            has_eligible_entry.add(entry.participant)
        others = tuple(other for other in tied[value] if other != entry.id)
        places.append(Place(entry, first_place[value], value, others, reason))
    places.extend(
        Place(entry, 0, None, (), _ineligible(entry, minimum_score)) for entry in unranked
    )
    return tuple(places)


def eligible(places: Sequence[Place]) -> tuple[Place, ...]:
    """The places that take part in the rewards, in order."""
    return tuple(place for place in places if place.is_eligible)


def wilson_interval(
    points: int, done: int, full_marks: int = 1, z: float = Z_95
) -> tuple[float, float]:
    """The Wilson score interval of a mean of marks, to show (Wilson 1927).

    Where a question gives one point or none this is the interval of a proportion. Where it can give
    part of its full marks, the interval is at least as wide as need be: of all marks from none to
    full with mean p none vary more than those that are either, and theirs is the variance p (1 - p)
    that it is made from.

    Args:
        points: The points given, 0 to `done` × `full_marks`.
        done: Questions answered; with none nothing is known and the interval is 0 to 1.
        full_marks: The points that one question can give, at least 1.
        z: The normal quantile; 95 % by default.

    Returns:
        The lower and the upper end, as shares of full marks within 0 and 1.
    """
    if done == 0:
        return 0.0, 1.0
    most = done * full_marks
    share = points / most
    denominator = 1 + z * z / done
    centre = share + z * z / (2 * done)
    spread = z * sqrt(share * (1 - share) / done + z * z / (4 * done * done))
    low = 0.0 if points == 0 else max(0.0, (centre - spread) / denominator)
    high = 1.0 if points == most else min(1.0, (centre + spread) / denominator)
    return low, high


def _ineligible(entry: Entry, minimum_score: Fraction | None) -> str:
    match entry.state:
        case EntryState.DISQUALIFIED:
            return f"Disqualified: {entry.reason}"
        case EntryState.WITHDRAWN:
            return "Withdrawn by the participant."
        case EntryState.FAILED:
            if entry.is_cut_off:
                return entry.reason
            return "It could not be evaluated." if entry.is_final else "Not evaluated completely."
        case EntryState.SUBMITTED | EntryState.QUEUED | EntryState.RUNNING:
            return "Not evaluated completely."
        case EntryState.SCORED:
            pass
    if entry.total == 0 or entry.done < entry.total:
        return "Not evaluated completely."
    if minimum_score is not None and entry.score <= minimum_score:
        return f"The score does not lie above the pool's minimum of {minimum_score}."
    if entry.prize_free:
        return "Entries of the operator and of the dataset's owner take no prize."
    return ""
