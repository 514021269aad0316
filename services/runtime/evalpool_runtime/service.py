"""What a service is, and how it is run: one `serve` for all six."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import structlog
from grpc import aio
from grpc_health.v1 import health_pb2_grpc
from prometheus_client import CollectorRegistry, start_http_server
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from evalpool import __version__
from evalpool.channel import MAX_MESSAGE_BYTES, MAX_METADATA_BYTES, open_channel
from evalpool.common.v1.service_info_pb2 import ServiceInfo
from evalpool.endpoints import metrics_endpoint
from evalpool.identity import Identity
from evalpool_runtime import health, reflection
from evalpool_runtime.access import ACCESS, Who
from evalpool_runtime.authentication import Authenticator
from evalpool_runtime.background import Background
from evalpool_runtime.clock import Clock, SystemClock
from evalpool_runtime.data_directory import DataDirectory
from evalpool_runtime.database import Database
from evalpool_runtime.errors import DomainError, Unavailable, reasons
from evalpool_runtime.garbage import collect_seldom
from evalpool_runtime.gatekeeper import Gatekeeper
from evalpool_runtime.interceptor import Interceptor
from evalpool_runtime.metrics import GrpcMetrics, new_registry
from evalpool_runtime.migrations import migrate
from evalpool_runtime.pages import PageTokens
from evalpool_runtime.settings import ServiceSettings
from evalpool_runtime.start import CannotStart

S = TypeVar("S", bound=ServiceSettings)

KEEPALIVE_SECONDS = 30.0
"""After how long a silence a client is asked whether it is there."""

KEEPALIVE_ANSWER_SECONDS = 20.0
"""How long it has to answer, until its calls are ended. A client that was cut off says nothing."""

CLEAN_UP_SECONDS = 5.0
"""How long a call that was cut off at the stop has to put its things in order."""


class DatabaseUnusable(CannotStart):
    """The database cannot be opened or migrated."""


class EndpointTaken(CannotStart):
    """An endpoint cannot be listened on."""


class Runtime(Generic[S]):
    """What a service is given to build itself with.

    Attributes:
        name: The service's name, such as "token".
        settings: Its settings.
        clock: What time it is.
        identity: Its key.
        operator: Its operator's address.
        server: The gRPC server to add servicers to.
        metrics: The registry to put metrics in.
        background: Its loops and sweeps.
        endpoint: Where it answers, host:port; known once the service is built.
        stopping: Set when the service begins to stop; endless streams must end then.
        page_tokens: Makes and reads page tokens.
    """

    def __init__(
        self, name: str, settings: S, clock: Clock, identity: Identity, operator: str
    ) -> None:
        self.name = name
        self.settings = settings
        self.clock = clock
        self.identity = identity
        self.operator = operator
        self.endpoint = ""
        self.stopping = asyncio.Event()
        self.metrics: CollectorRegistry = new_registry()
        self.background = Background(self.stopping, self.metrics)
        self.log = structlog.get_logger(f"evalpool.{name}")
        self.page_tokens = PageTokens(identity.derive("page tokens"))
        self._roles: dict[Who, Callable[[str], bool]] = {
            Who.OPERATOR: lambda address: bool(operator) and address == operator
        }
        self._on_stop: list[Callable[[], Awaitable[None]]] = []
        self._channels: dict[tuple[str, str, bool], aio.Channel] = {}
        self._interceptor = self._new_interceptor()
        self.server = self._new_server()

    def role(self, who: Who, predicate: Callable[[str], bool]) -> None:
        """Say which addresses belong to a class of callers."""
        self._roles[who] = predicate

    def peer_role(self, who: Who, address: str) -> None:
        """Say that one address, where it is set, is a class of callers."""
        self.role(who, lambda caller: bool(address) and caller == address)

    def spawn(self, name: str, loop: Callable[[], Awaitable[None]]) -> None:
        """Keep a loop running until the service stops."""
        self.background.spawn(name, loop)

    def every(self, name: str, seconds: float, sweep: Callable[[], Awaitable[object]]) -> None:
        """Run a sweep every so many seconds; it may run late or twice."""
        self.background.every(name, seconds, sweep)

    def on_stop(self, action: Callable[[], Awaitable[None]]) -> None:
        """Do something at the stop, after the last call has ended; last registered, first done."""
        self._on_stop.append(action)

    async def open_database(self, migrations: str, *, durable: bool = False) -> Database:
        """Open and migrate the service's database.

        Args:
            migrations: The package of its migrations, such as "evalpool_token.migrations".
            durable: Sync every commit to disk, for money.

        Raises:
            DatabaseUnusable: It cannot be opened or migrated.
        """
        url = self.settings.database_url or f"sqlite:///{self.data_dir / self.name}.db"
        try:
            database = Database.open(url, durable=durable)
            self.on_stop(database.close)
            await migrate(database, migrations)
        except (ArgumentError, NoSuchModuleError, DBAPIError, Unavailable) as error:
            # The URL may hold a password, and the error names the host where that matters.
            cause = error.__cause__ if isinstance(error, Unavailable) else error
            reason = str(getattr(cause, "orig", None) or cause).strip().splitlines()[0]
            raise DatabaseUnusable(
                f"the {self.name} service's database cannot be used: {reason}; see --database-url"
            ) from error
        return database

    @property
    def data_dir(self) -> Path:
        """Where the service keeps its files."""
        return self.settings.data_dir

    def channel(self, endpoint: str, audience: str, *, retries: bool = True) -> aio.Channel:
        """A channel to a peer, opened once; calls on it are signed by this service."""
        key = (endpoint, audience, retries)
        if key not in self._channels:
            self._channels[key] = open_channel(endpoint, self.identity, audience, retries=retries)
        return self._channels[key]

    def service_info(self) -> ServiceInfo:
        """Who this server is, as GetInfo tells it."""
        return ServiceInfo(
            service=self.name,
            address=self.identity.address,
            version=__version__,
            operator=self.operator,
        )

    def stopping_error(self) -> Unavailable:
        """What a stream ends with when the service stops."""
        return Unavailable(
            reasons.ERROR_REASON_UNAVAILABLE,
            "the service is stopping; go on from your cursor at once",
            retry_after=1.0,
        )

    def _new_interceptor(self) -> Interceptor:
        gatekeeper = Gatekeeper(Authenticator(self.identity.address, self.clock), self._roles)
        return Interceptor(gatekeeper, GrpcMetrics(self.metrics))

    def _new_server(self) -> aio.Server:
        return aio.server(
            interceptors=[self._interceptor],
            options=[
                # Two servers must not share a port unnoticed.
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_metadata_size", MAX_METADATA_BYTES),
                ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
                ("grpc.keepalive_time_ms", round(KEEPALIVE_SECONDS * 1000)),
                ("grpc.keepalive_timeout_ms", round(KEEPALIVE_ANSWER_SECONDS * 1000)),
                # gRPC's own limit for a ping's answer, a minute, holds whatever the one above says.
                ("grpc.http2.ping_timeout_ms", round(KEEPALIVE_ANSWER_SECONDS * 1000)),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.max_pings_without_data", 0),
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
                ("grpc.http2.max_ping_strikes", 0),
            ],
        )

    async def _end_calls(self, grace: float) -> None:
        self.stopping.set()
        await self.server.stop(grace)
        # gRPC does not wait for the handlers of the calls that it cuts off.
        if not await self._interceptor.drained(CLEAN_UP_SECONDS):
            self.log.warning("calls that were cut off have not ended", seconds=CLEAN_UP_SECONDS)

    async def _stopped(self) -> None:
        self.stopping.set()
        # Each is done whatever becomes of the others, the last pushed first.
        async with contextlib.AsyncExitStack() as stack:
            for channel in self._channels.values():
                stack.push_async_callback(channel.close)
            for action in self._on_stop:
                stack.push_async_callback(action)
            stack.push_async_callback(self.background.stop)


@dataclass(frozen=True)
class ServiceDefinition(Generic[S]):
    """One of the six services.

    Attributes:
        name: Its name, such as "token".
        port: Its port on 127.0.0.1, unless its settings say otherwise.
        settings_type: The class of its settings.
        grpc_service: The full name of its gRPC service.
        build: Makes the service on a runtime: opens its database, adds its servicer, starts loops.
    """

    name: str
    port: int
    settings_type: type[S]
    grpc_service: str
    build: Callable[[Runtime[S]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class RunningService:
    """A service that answers calls.

    Attributes:
        endpoint: Where, host:port.
        address: The address of its key.
        metrics_endpoint: Where its metrics are; empty for nowhere.
        runtime: What it was built on.
    """

    endpoint: str
    address: str
    metrics_endpoint: str
    runtime: Runtime[Any]


@asynccontextmanager
async def running_service(
    definition: ServiceDefinition[S],
    settings: S,
    *,
    clock: Clock | None = None,
    identity: Identity | None = None,
) -> AsyncIterator[RunningService]:
    """Run a service for the length of a block: start it, answer calls, stop it gracefully.

    Args:
        definition: Which service.
        settings: Its settings.
        clock: Default: the machine's.
        identity: Default: the key in its key file, made there where there is none.

    Raises:
        CannotStart: Its data directory or an endpoint is in use, its database or what it is given
            cannot be used.
        InvalidKeyFile: A key file is none.
        OSError: A file or folder cannot be read or made.
    """
    directory = DataDirectory(settings.data_dir, definition.name)
    directory.acquire()
    try:
        keys = settings.data_dir / "keys"
        identity = identity or Identity.load_or_create(
            settings.key_file or keys / f"{definition.name}.json"
        )
        operator = settings.operator or Identity.load_or_create(keys / "operator.json").address
        runtime = Runtime(definition.name, settings, clock or SystemClock(), identity, operator)
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(runtime._stopped)
            listen = settings.listen or f"127.0.0.1:{definition.port}"
            port = _bind(runtime.server, listen)
            runtime.endpoint = f"{listen.rpartition(':')[0]}:{port}"
            try:
                await definition.build(runtime)
            except DomainError as error:
                raise CannotStart(
                    f"the {definition.name} service cannot start: {error.message}"
                ) from error
            health_pb2_grpc.add_HealthServicer_to_server(
                health.Health(definition.grpc_service, runtime.stopping), runtime.server
            )
            names = (definition.grpc_service, health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflection.enable_reflection(names, runtime.server, runtime.stopping)
            metrics_listen = settings.metrics_listen
            if metrics_listen is None:
                metrics_listen = metrics_endpoint(listen)
            metrics = _serve_metrics(metrics_listen, runtime.metrics, stack)
            await runtime.server.start()
            stack.push_async_callback(runtime._end_calls, settings.shutdown_grace)
            yield RunningService(runtime.endpoint, identity.address, metrics, runtime)
    finally:
        directory.release()


async def serve(
    definition: ServiceDefinition[S], settings: S, *, stop_with_stdin: bool = False
) -> None:
    """Run a service until SIGTERM or SIGINT: NOT_SERVING, drain, stop.

    During its start they end the whole process at once, with status 0.

    Args:
        definition: Which service.
        settings: Its settings.
        stop_with_stdin: Stop when standard input is closed too: when the process that started this
            one has ended, however it did.
    """
    started, stop = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    log = structlog.get_logger(f"evalpool.{definition.name}")

    def end() -> None:
        if not started.is_set():
            # A thread of the start may wait for a database or compute, and cannot be interrupted.
            # Nothing that a start does is lost by its end, as none is by a crash.
            log.info("stopped during the start")
            os._exit(0)
        stop.set()

    def end_with_input() -> None:
        if not os.read(0, 4096):
            loop.remove_reader(0)
            end()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    if stop_with_stdin:
        loop.add_reader(0, end_with_input)
    async with running_service(definition, settings) as running:
        collect_seldom()
        started.set()
        log.info(
            "serving",
            endpoint=running.endpoint,
            address=running.address,
            metrics=running.metrics_endpoint,
        )
        await stop.wait()
        log.info("stopping")


def _bind(server: aio.Server, listen: str) -> int:
    try:
        port: int = server.add_insecure_port(listen)
    except RuntimeError as error:
        raise EndpointTaken(f"{listen} cannot be listened on; is another process there?") from error
    if port == 0:
        raise EndpointTaken(f"{listen} cannot be listened on; is another process there?")
    return port


def _serve_metrics(
    listen: str, registry: CollectorRegistry, stack: contextlib.AsyncExitStack
) -> str:
    if not listen:
        return ""
    host, _, port = listen.rpartition(":")
    try:
        # An IPv6 address stands in brackets where a port follows it.
        server, thread = start_http_server(int(port), addr=host.strip("[]"), registry=registry)
    except OSError as error:
        raise EndpointTaken(
            f"{listen} cannot be listened on for metrics ({error.strerror}); is another process "
            "there?"
        ) from error

    def close() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    stack.callback(close)
    return f"{host}:{server.server_port}"


def methods_of(grpc_service: str) -> frozenset[str]:
    """The methods of one service that the access table knows."""
    return frozenset(
        method.rpartition("/")[2] for method in ACCESS if method.startswith(f"/{grpc_service}/")
    )
