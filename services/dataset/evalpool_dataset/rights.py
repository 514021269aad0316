"""Rights: who may do what with datasets and their runs."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection

from evalpool_dataset.run import Run
from evalpool_dataset.store import askings, definitions, runs
from evalpool_dataset.store.askings import NotAsked
from evalpool_dataset.store.definitions import Definition
from evalpool_runtime.errors import PermissionDenied, reasons


@dataclass(frozen=True, slots=True)
class Rights:
    """Questions and answers are for a dataset's owner; its runs for the benchmark service too.

    A run is seen by the owners of the datasets that it was asked for on. Others whose datasets have
    the same content see it once it is asked for on theirs.

    Attributes:
        benchmark: The benchmark service's address; empty for none.
    """

    benchmark: str

    def is_benchmark(self, caller: str) -> bool:
        """Whether it is the benchmark service that calls."""
        return bool(caller) and caller == self.benchmark

    def own_definition(
        self, connection: Connection, caller: str, dataset: str, field: str = "dataset"
    ) -> Definition:
        """A dataset of the caller's own.

        Raises:
            NotFound: There is none.
            PermissionDenied: It is somebody else's.
        """
        found = definitions.require_definition(connection, dataset, field)
        if caller != found.owner:
            raise PermissionDenied(
                reasons.ERROR_REASON_NOT_ALLOWED,
                f"{field}: only the owner of {dataset} may do this; sign with the owner's wallet",
            )
        return found

    def usable_definition(self, connection: Connection, caller: str, dataset: str) -> Definition:
        """A dataset that the caller may run models on.

        Raises:
            NotFound: There is none.
            PermissionDenied: The caller may not.
        """
        if self.is_benchmark(caller):
            return definitions.require_definition(connection, dataset)
        return self.own_definition(connection, caller, dataset)

    def visible_run(self, connection: Connection, caller: str, run: str, field: str = "run") -> Run:
        """A run whose score the caller may see.

        Raises:
            NotFound: There is none.
            PermissionDenied: The caller may not.
        """
        return _asked_run(connection, run, self.owner_filter(caller), field)

    def own_run(self, connection: Connection, caller: str, run: str) -> Run:
        """A run that was asked for on a dataset of the caller's own.

        Raises:
            NotFound: There is none.
            PermissionDenied: It was asked for on others' only.
        """
        return _asked_run(connection, run, caller, "run")

    def owner_filter(self, caller: str) -> str | None:
        """On whose datasets runs were asked for that the caller sees; None for everybody's."""
        return None if self.is_benchmark(caller) else caller


def _asked_run(connection: Connection, run: str, owner: str | None, field: str) -> Run:
    found = runs.require_run(connection, run, field)
    try:
        askings.first_version(connection, run, owner)
    except NotAsked:
        raise PermissionDenied(
            reasons.ERROR_REASON_NOT_ALLOWED,
            f"{field}: only the owner of a dataset that it was asked for on may see the run; sign "
            "with the owner's wallet, or start it on a dataset of yours",
        ) from None
    return found
