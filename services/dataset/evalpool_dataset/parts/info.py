"""The Info part."""

from __future__ import annotations

from dataclasses import dataclass

from evalpool_dataset.parts.base import Spec


@dataclass(frozen=True, slots=True)
class KindInfo:
    """What a kind of dataset is.

    Attributes:
        kind: The kind's name.
        description: One or two sentences for people.
    """

    kind: str
    description: str

    def spec(self) -> Spec:
        """For the digest."""
        return {"kind": self.kind}
