"""The roll of workers: who registers, keeps a lease, drains and leaves, in memory and on disk."""

from __future__ import annotations

from collections import deque
from datetime import datetime, timedelta

from sqlalchemy import Connection

from evalpool.router.v1 import router_pb2
from evalpool_router import store
from evalpool_router.herd import Herd
from evalpool_router.membership import Candidate, Membership
from evalpool_router.packing import pack_worker
from evalpool_router.scheduler import Kind, Registration, Scheduler
from evalpool_router.scheduler.refusals import lease_lost, superseded
from evalpool_router.settings import RouterSettings
from evalpool_runtime.clock import Clock
from evalpool_runtime.database import Database
from evalpool_runtime.errors import NotFound, reasons
from evalpool_runtime.protobuf import duration
from evalpool_runtime.replay import once

MOST_SUPERSEDED = 16
"""Earlier starts of a worker that are remembered; they ask again every second while they live."""


class Roster:
    """Keeps the herd's workers in step with what is admitted and stored.

    What a call changes is written first, then done in memory. Doing it again is harmless, which
    is what a repeated call comes to.

    Args:
        database: Where admissions and generations are kept.
        membership: Who is admitted.
        herd: The workers themselves.
        settings: How long leases last.
        clock: What time it is.
    """

    def __init__(
        self,
        database: Database,
        membership: Membership,
        herd: Herd,
        settings: RouterSettings,
        clock: Clock,
    ) -> None:
        self._database = database
        self._membership = membership
        self._herd = herd
        self._settings = settings
        self._clock = clock
        self._candidates: dict[str, Candidate] = {}
        self._superseded: dict[str, deque[str]] = {}

    @property
    def scheduler(self) -> Scheduler:
        """The herd's scheduler, to read."""
        return self._herd.scheduler

    def workers(self) -> list[router_pb2.Worker]:
        """The workers with a lease, by address."""
        now, moment = self._clock.monotonic(), self._clock.now()
        return [
            pack_worker(
                view,
                endpoint=self._candidates[view.address].endpoint,
                memory_bytes=self._candidates[view.address].memory_bytes,
                only_models=self._candidates[view.address].only_models,
                lease_until=moment + timedelta(seconds=view.lease_until - now),
            )
            for view in self.scheduler.workers(now)
        ]

    async def register(self, candidate: Candidate) -> router_pb2.RegisterWorkerResponse:
        """Enter a worker: a repeat keeps its generation, a new start gets the next one.

        Raises:
            PermissionDenied: It is not admitted for any of the work that it offers.
            Aborted: A later registration has overtaken this one, or a later start has the lease.
        """
        self._membership.admitted_kinds(candidate)
        current = self._generation(candidate.address)
        known = self._candidates.get(candidate.address)
        if current is not None and candidate.instance in self._earlier(candidate.address):
            # Two with one key would take the lease, and with it the work, from each other for ever.
            raise superseded(current)
        repeat = current if known is not None and known.instance == candidate.instance else None

        def work(connection: Connection) -> router_pb2.RegisterWorkerResponse:
            generation = repeat or store.next_generation(connection, candidate.address)
            return router_pb2.RegisterWorkerResponse(
                generation=generation,
                lease=duration(timedelta(seconds=self._settings.lease_seconds)),
                heartbeat_interval=duration(timedelta(seconds=self._settings.heartbeat_seconds)),
            )

        response = await once(self._database, router_pb2.RegisterWorkerResponse, work)
        # Both may have changed while the generation was written.
        kinds = self._membership.admitted_kinds(candidate)
        current = self._generation(candidate.address)
        if current is not None and current > response.generation:
            raise lease_lost(response.generation)
        self._supersede(candidate)
        self._candidates[candidate.address] = candidate
        self._herd.register(
            Registration(
                address=candidate.address,
                generation=response.generation,
                kinds=kinds,
                slots=candidate.slots,
                models=candidate.models,
                draining=self._membership.is_draining(candidate.address),
                memory_bytes=candidate.memory_bytes,
                only_models=candidate.only_models,
            ),
            candidate.endpoint,
            candidate.engine_build,
        )
        return response

    def heartbeat(
        self,
        address: str,
        generation: int,
        *,
        models: frozenset[str],
        computed_tokens: int,
        leaving: bool,
    ) -> tuple[datetime, bool]:
        """Keep a worker's lease; gives when it lapses, and whether the operator lets it drain.

        Raises:
            Aborted: The worker has no lease, or a newer one.
        """
        self._herd.heartbeat(
            address,
            generation,
            models=models,
            computed_tokens=computed_tokens,
            leaving=leaving,
        )
        until = self._clock.now() + timedelta(seconds=self._settings.lease_seconds)
        return until, self._membership.is_draining(address)

    def unregister(self, address: str, generation: int) -> None:
        """Take out a worker; nothing where it is out already."""
        self._herd.unregister(address, generation)

    async def drain(self, address: str, draining: bool) -> router_pb2.DrainWorkerResponse:
        """Give a worker nothing new, or let it take work again; this outlasts its registration.

        Raises:
            NotFound: The address is not admitted.
        """
        if not self._membership.is_admitted(address):
            raise NotFound(
                reasons.ERROR_REASON_WORKER_NOT_FOUND,
                f"worker: {address} is not admitted; admit it first, or see ListWorkers",
            )

        def work(connection: Connection) -> router_pb2.DrainWorkerResponse:
            store.set_worker_draining(connection, address, draining)
            return router_pb2.DrainWorkerResponse(
                worker=router_pb2.Worker(address=address, draining=draining)
            )

        response = await once(self._database, router_pb2.DrainWorkerResponse, work)
        self._membership.drain(address, draining)
        self._herd.drain(address, draining)
        for worker in self.workers():
            if worker.address == address:
                response.worker.CopyFrom(worker)
        return response

    async def admit(self, address: str, kinds: frozenset[Kind]) -> router_pb2.AdmitWorkerResponse:
        """Admit a worker for these kinds of work and no others; none: no longer admit it."""

        def work(connection: Connection) -> router_pb2.AdmitWorkerResponse:
            store.set_worker_kinds(connection, address, kinds)
            return router_pb2.AdmitWorkerResponse()

        response = await once(self._database, router_pb2.AdmitWorkerResponse, work)
        self._membership.admit(address, kinds)
        registered = self._candidates.get(address)
        if registered is not None:
            self._herd.assign(address, registered.kinds & kinds)
        return response

    def _earlier(self, address: str) -> deque[str]:
        """Starts of a worker after which another one has registered."""
        return self._superseded.setdefault(address, deque(maxlen=MOST_SUPERSEDED))

    def _supersede(self, candidate: Candidate) -> None:
        """Note that this is the worker's newest start."""
        earlier = self._earlier(candidate.address)
        if candidate.instance in earlier:
            earlier.remove(candidate.instance)
        known = self._candidates.get(candidate.address)
        if known is not None and known.instance != candidate.instance:
            earlier.append(known.instance)

    def _generation(self, address: str) -> int | None:
        view = self.scheduler.worker(address, self._clock.monotonic())
        return None if view is None else view.generation
