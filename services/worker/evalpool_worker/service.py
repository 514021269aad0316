"""The worker service: its parts put together."""

from __future__ import annotations

from collections.abc import Callable

from evalpool.models import FetchPolicy
from evalpool.router.v1 import router_pb2_grpc
from evalpool.worker.v1 import worker_pb2_grpc
from evalpool_runtime.access import Who
from evalpool_runtime.replay import forget_expired
from evalpool_runtime.service import Runtime, ServiceDefinition
from evalpool_runtime.start import CannotStart
from evalpool_worker.defaults import Defaults
from evalpool_worker.engine.base import Engine
from evalpool_worker.fetching import ModelFetcher, RouterRepository
from evalpool_worker.metrics import WorkerMetrics
from evalpool_worker.model_files import open_store
from evalpool_worker.model_host import ModelHost, Models
from evalpool_worker.registration import Offer, Reading, Registration
from evalpool_worker.served_model import ServedModel
from evalpool_worker.servicer import WorkerServicer
from evalpool_worker.settings import WorkerSettings
from evalpool_worker.slots import Slots

FORGET_SECONDS = 300.0
LOOK_SECONDS = 10.0


async def build(runtime: Runtime[WorkerSettings]) -> None:
    """Build the worker on its runtime."""
    settings = runtime.settings
    database = await runtime.open_database("evalpool_worker.migrations")
    runtime.role(
        Who.ADMITTED_ROUTER,
        lambda address: address in {settings.router_address, *settings.admitted_routers} - {""},
    )
    router = (
        router_pb2_grpc.RouterServiceStub(
            runtime.channel(settings.router_endpoint, settings.router_address)
        )
        if settings.router_endpoint
        else None
    )
    store = open_store(settings.models_dir or runtime.data_dir / "models", settings.store_bytes)
    fetcher = ModelFetcher(
        store,
        RouterRepository(router) if router is not None else None,
        FetchPolicy.from_environment(file_roots=settings.file_roots),
    )
    runtime.on_stop(fetcher.close)
    host: Models
    if settings.engine == "openai":
        host, engine_build = _served(settings)
        runtime.every("look-at-server", LOOK_SECONDS, host.look)
    else:
        make_engine, engine_build = _engines(settings)
        host = ModelHost(make_engine, store, fetcher, settings.memory_bytes, runtime.clock)
    runtime.on_stop(host.close)
    slots = Slots(settings.slots)

    registration: Registration | None = None
    if router is not None:
        registration = Registration(
            router,
            Offer(
                settings.advertise or runtime.endpoint,
                settings.offered_kinds,
                settings.slots,
                0 if settings.only_models else settings.memory_bytes,
                settings.engine,
                engine_build,
                settings.only_models,
            ),
            lambda: Reading(
                slots.busy, tuple(model.digest for model in host.loaded), host.computed_tokens
            ),
            runtime.stopping,
        )
        runtime.on_stop(registration.leave)
        runtime.spawn("registration", registration.keep)

    defaults = Defaults(database, settings)
    await defaults.refresh()
    servicer = WorkerServicer(
        runtime,
        database,
        host,
        store,
        slots,
        defaults,
        lambda: registration.generation if registration is not None else 0,
        engine_build,
        WorkerMetrics(runtime.metrics, slots, host),
    )
    worker_pb2_grpc.add_WorkerServiceServicer_to_server(servicer, runtime.server)

    async def forget() -> None:
        await database.write(lambda connection: forget_expired(connection, runtime.clock.now()))

    runtime.every("forget-tokens", FORGET_SECONDS, forget)


def _engines(settings: WorkerSettings) -> tuple[Callable[[], Engine], str]:
    if settings.engine == "fake":
        from evalpool_worker.engine.fake import FakeEngine

        return FakeEngine, "fake 1"
    from evalpool_worker.engine.library import library_build
    from evalpool_worker.engine.llama_cpp import LlamaCppEngine
    from evalpool_worker.engine.shape import EngineSettings, available_cores

    threads = settings.threads or max(1, available_cores() // settings.workers_on_host)
    engine_settings = EngineSettings(
        threads=threads, gpu_layers=settings.gpu_layers, generate_slots=settings.slots
    )
    return lambda: LlamaCppEngine(engine_settings), library_build()


def _served(settings: WorkerSettings) -> tuple[ServedModel, str]:
    from evalpool_worker.engine.openai import OpenAIEngine, OpenAISettings, openai_build

    server = OpenAISettings(
        url=settings.openai_url,
        model=settings.openai_model,
        dialect=settings.openai_dialect,
        key=_key(settings),
        silent_seconds=settings.openai_silent_seconds,
        slots=settings.slots,
    )
    model = ServedModel(OpenAIEngine(server), settings.openai_digest, settings.openai_model)
    return model, openai_build(server)


def _key(settings: WorkerSettings) -> str:
    if settings.openai_key is not None:
        key = settings.openai_key.get_secret_value()
    elif settings.openai_key_file is not None:
        try:
            key = settings.openai_key_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise CannotStart(
                f"--openai-key-file: {settings.openai_key_file} can't be read; give a text file "
                "that holds the key"
            ) from error
    else:
        return ""
    if not key.isascii() or not key.isprintable() or not key:
        raise CannotStart("--openai-key: it is no key; give printable ASCII characters")
    return key


SERVICE = ServiceDefinition(
    name="worker",
    port=50055,
    settings_type=WorkerSettings,
    grpc_service="evalpool.worker.v1.WorkerService",
    build=build,
)
