"""Which workers may join the herd."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from evalpool_router import store
from evalpool_router.scheduler import Kind
from evalpool_runtime.errors import PermissionDenied, reasons

ALL_KINDS = frozenset(Kind)


@dataclass(frozen=True, slots=True)
class Candidate:
    """What a worker says of itself when it registers.

    Attributes:
        address: Who it is.
        endpoint: Where it can be reached, host:port.
        kinds: The work that it would take.
        slots: Requests that it takes at a time.
        memory_bytes: Bytes that it gives to models; 0 where it does not say.
        engine_build: The build of its engine, which its results must name.
        models: Digests of the models that it has loaded.
        instance: A random id of this start of its process.
        only_models: Digests of the models that it takes, where it takes no others.
    """

    address: str
    endpoint: str
    kinds: frozenset[Kind]
    slots: int
    memory_bytes: int
    engine_build: str
    models: frozenset[str]
    instance: str
    only_models: frozenset[str] = frozenset()


class Membership:
    """The admitted workers, as calls and settings say.

    What calls say is kept in the database, and goes before the settings. This object mirrors it, so
    that who calls can be checked without asking the database.

    Args:
        by_settings: Addresses that the settings admit for every kind of work.
        records: What the database has.
    """

    def __init__(self, by_settings: Iterable[str], records: Iterable[store.WorkerRecord]) -> None:
        self._by_settings = frozenset(by_settings)
        self._by_call: dict[str, frozenset[Kind]] = {}
        self._draining: set[str] = set()
        for record in records:
            if record.kinds is not None:
                self._by_call[record.address] = record.kinds
            if record.draining:
                self._draining.add(record.address)

    def kinds(self, address: str) -> frozenset[Kind]:
        """The work that an address is admitted for; empty for one that is not admitted."""
        by_settings = ALL_KINDS if address in self._by_settings else frozenset[Kind]()
        return self._by_call.get(address, by_settings)

    def is_admitted(self, address: str) -> bool:
        """Whether an address may join the herd."""
        return bool(self.kinds(address))

    def is_draining(self, address: str) -> bool:
        """Whether the operator lets a worker drain, from now on or since before it joined."""
        return address in self._draining

    def admit(self, address: str, kinds: frozenset[Kind]) -> None:
        """Mirror what the operator's call has written."""
        self._by_call[address] = kinds

    def drain(self, address: str, draining: bool) -> None:
        """Mirror what the operator's call has written."""
        if draining:
            self._draining.add(address)
        else:
            self._draining.discard(address)

    def admitted_kinds(self, candidate: Candidate) -> frozenset[Kind]:
        """The kinds of work that a worker offers and is admitted for.

        Raises:
            PermissionDenied: There is none.
        """
        admitted = self.kinds(candidate.address)
        kinds = candidate.kinds & admitted
        if not kinds:
            names = ", ".join(sorted(kind.name.lower() for kind in admitted))
            raise PermissionDenied(
                reasons.ERROR_REASON_NOT_ALLOWED,
                f"kinds: this worker is admitted for {names or 'nothing'}; offer one of these, or "
                "ask the operator to admit it",
                address=candidate.address,
            )
        return kinds
