"""Which models bring workers down.

A worker that breaks off in the midst of its work may have been brought down by any model that it
was at, so that counts against each of them until it answers something. Those with the most such
losses are suspected. One that has answered before has as many in hand as there are workers: a line
that is cut takes them all at once. A model that alone has too many gets a rest, in which it is not
tried, and after which one loss more gives it a longer rest.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

from evalpool_router.scheduler.rules import Rules


@dataclass(slots=True)
class _Record:
    losses: int = 0
    rests: int = 0
    resting_until: float = 0.0


class Crashes:
    """Workers lost over each model since it last answered something.

    Attributes:
        rests: How often a model was given a rest.

    Args:
        rules: How many losses are too many, and how long rests are.
    """

    def __init__(self, rules: Rules) -> None:
        self.rests = 0
        self._rules = rules
        self._records: dict[str, _Record] = {}

    def worker_lost(self, models: Set[str], now: float) -> frozenset[str]:
        """Count a lost worker against the models that it was at.

        Args:
            models: Digests of the models, at least one.
            now: The present second.

        Returns:
            Those of them that are suspected.
        """
        for model in models:
            self._records.setdefault(model, _Record()).losses += 1
        most = max(self._records[model].losses for model in models)
        suspects = frozenset(model for model in models if self._records[model].losses == most)
        if most >= self._rules.crashes and len(suspects) == 1:
            (model,) = suspects
            self._rest(self._records[model], now)
        return suspects

    def answered(self, model: str, workers: int) -> None:
        """A model has answered something: the losses that it was near are forgiven.

        Args:
            model: Its digest.
            workers: How many workers there are, at least one.
        """
        self._records[model] = _Record(losses=-workers)

    def rest_of(self, model: str, now: float) -> float:
        """Seconds for which a model is not to be tried."""
        record = self._records.get(model)
        return 0.0 if record is None else max(record.resting_until - now, 0.0)

    def resting(self, now: float) -> int:
        """Models that are not to be tried."""
        return sum(record.resting_until > now for record in self._records.values())

    def _rest(self, record: _Record, now: float) -> None:
        first, longest = self._rules.model_rest_seconds, self._rules.longest_model_rest_seconds
        record.resting_until = now + min(first * 2.0 ** min(record.rests, 20), longest)
        record.rests += 1
        self.rests += 1
        record.losses = self._rules.crashes - 1
