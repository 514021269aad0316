"""Models that the herd can run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Model:
    """A model of the catalogue, or an uploaded one.

    Attributes:
        digest: The content's SHA-256; empty for a catalogue model whose digest is not known.
        name: The name, for people.
        source: Where it comes from; empty for uploads.
        owner: Who uploaded it; empty for models of the catalogue.
        size_bytes: Its size; 0 where unknown.
        license: Its licence; empty where unknown.
        context_length: The longest context in tokens; 0 where unknown.
        quantisation: Such as "Q4_1"; empty where unknown.
        create_time: When it was uploaded; None for models of the catalogue.
    """

    digest: str
    name: str
    source: str = ""
    owner: str = ""
    size_bytes: int = 0
    license: str = ""
    context_length: int = 0
    quantisation: str = ""
    create_time: datetime | None = None
