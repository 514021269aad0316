"""`evalpool serve` as real processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from evalpool.channel import open_channel
from evalpool.identity import Identity
from evalpool.models import ModelStore, ensure, find_model
from evalpool.token.v1 import token_pb2, token_pb2_grpc

Serve = Callable[..., Coroutine[Any, Any, Process]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts `evalpool serve`; whatever still runs at the end is killed."""
    async with AsyncExitStack() as stack:

        async def start(*arguments: str, **environment: str) -> Process:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "evalpool",
                "serve",
                *arguments,
                stdin=PIPE,
                stdout=PIPE,
                stderr=PIPE,
                env={k: v for k, v in os.environ.items() if not k.startswith("EVALPOOL_")}
                | environment,
            )

            async def end() -> None:
                if process.returncode is None:
                    process.kill()
                await process.communicate()

            stack.push_async_callback(end)
            return process

        yield start


@dataclass(frozen=True, slots=True)
class Serving:
    """A token service that answers its health check.

    Attributes:
        process: Its process.
        endpoint: Where it answers.
        metrics: Where its metrics are.
    """

    process: Process
    endpoint: str
    metrics: str


async def token_service(serve: Serve, data: Path, *flags: str) -> Serving:
    """Start a token service on free ports, and wait until it answers."""
    listen = ("--listen", "127.0.0.1:0", "--log-format", "json")
    return await answering(await serve("token", *listen, "--data-dir", str(data), *flags))


async def answering(process: Process) -> Serving:
    """Wait until a service that logs JSON answers."""
    assert process.stderr is not None
    event = {"event": ""}
    while event["event"] != "serving":
        line = await process.stderr.readline()
        assert line.startswith(b"{"), line
        event = json.loads(line)
    async with open_channel(event["endpoint"]) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        response = await health.Check(health_pb2.HealthCheckRequest())
    assert response.status == health_pb2.HealthCheckResponse.SERVING
    return Serving(process, event["endpoint"], event["metrics"])


async def failure(process: Process) -> str:
    """The one line with which a process refused to start."""
    out, err = await process.communicate()
    assert process.returncode == 1, err.decode()
    assert out == b""
    lines = err.decode().splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == 1, lines
    assert "Traceback" not in err.decode()
    return errors[0].removeprefix("error: ")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_with_status_0(
    serve: Serve, tmp_path: Path, number: signal.Signals
) -> None:
    process = (await token_service(serve, tmp_path)).process
    process.send_signal(number)
    _, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    assert "Traceback" not in err.decode()


@pytest.fixture
async def silent_database() -> AsyncIterator[tuple[str, asyncio.Event]]:
    """The URL of a database that takes connections and says nothing, and whether one was made."""
    reached = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.set()
        await reader.read(-1)
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield f"postgresql+psycopg://me@127.0.0.1:{port}/x", reached


@pytest.mark.parametrize("told_by", ["SIGTERM", "SIGINT", "the end of its input"])
async def test_a_start_that_waits_ends_when_it_is_told_to(
    serve: Serve, tmp_path: Path, silent_database: tuple[str, asyncio.Event], told_by: str
) -> None:
    url, reached = silent_database
    flags = ("--listen", "127.0.0.1:0", "--data-dir", str(tmp_path), "--stop-with-stdin")
    process = await serve("token", *flags, "--database-url", url)
    assert process.stdin is not None
    await reached.wait()

    if told_by.startswith("SIG"):
        process.send_signal(signal.Signals[told_by])
    else:
        process.stdin.close()

    _, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    assert "stopped during the start" in err.decode()
    assert "Traceback" not in err.decode()


async def test_a_watch_does_not_hold_up_the_end(serve: Serve, tmp_path: Path) -> None:
    service = await token_service(serve, tmp_path, "--shutdown-grace", "1000")
    process, endpoint = service.process, service.endpoint
    address = Identity.load(tmp_path / "keys" / "token.json").address
    async with open_channel(endpoint, Identity.generate(), address, retries=False) as channel:
        stub: token_pb2_grpc.TokenServiceAsyncStub = token_pb2_grpc.TokenServiceStub(channel)
        watch = stub.WatchNotices(token_pb2.WatchNoticesRequest())
        # The service has the watch once it has answered a later call on the same connection.
        reading = asyncio.ensure_future(watch.read())
        await stub.GetBalance(token_pb2.GetBalanceRequest())

        process.terminate()

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await reading
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert await process.wait() == 0


async def test_the_end_of_its_input_ends_it_where_it_was_told_so(
    serve: Serve, tmp_path: Path
) -> None:
    process = (await token_service(serve, tmp_path, "--stop-with-stdin")).process
    assert process.stdin is not None
    process.stdin.close()
    assert await process.wait() == 0


async def test_the_end_of_its_input_is_nothing_to_it_otherwise(
    serve: Serve, tmp_path: Path
) -> None:
    service = await token_service(serve, tmp_path)
    process, endpoint = service.process, service.endpoint
    assert process.stdin is not None
    process.stdin.close()
    async with open_channel(endpoint) as channel:
        stub: Any = token_pb2_grpc.TokenServiceStub(channel)
        assert (await stub.GetInfo(token_pb2.GetInfoRequest())).ticker == "EVAL"
    assert process.returncode is None


async def test_a_second_process_on_the_data_directory_is_refused(
    serve: Serve, tmp_path: Path
) -> None:
    await token_service(serve, tmp_path)
    second = await serve("token", "--listen", "127.0.0.1:0", "--data-dir", str(tmp_path))
    line = await failure(second)
    assert line.startswith(f"{tmp_path} is in use by another process")
    assert "--data-dir" in line


async def test_a_taken_port_is_named(serve: Serve, tmp_path: Path) -> None:
    endpoint = (await token_service(serve, tmp_path / "one")).endpoint
    second = await serve("token", "--listen", endpoint, "--data-dir", str(tmp_path / "two"))
    assert (await failure(second)).startswith(f"{endpoint} cannot be listened on")


async def test_a_taken_port_of_metrics_is_named(serve: Serve, tmp_path: Path) -> None:
    endpoint = (await token_service(serve, tmp_path / "one")).endpoint
    flags = ("--listen", "127.0.0.1:0", "--metrics-listen", endpoint)
    second = await serve("token", *flags, "--data-dir", str(tmp_path / "two"))
    assert (await failure(second)).startswith(f"{endpoint} cannot be listened on for metrics")


async def test_metrics_are_served_without_being_asked_for(serve: Serve, tmp_path: Path) -> None:
    service = await token_service(serve, tmp_path)
    async with httpx.AsyncClient(trust_env=False) as client:
        text = (await client.get(f"http://{service.metrics}/metrics")).text
    assert 'grpc_server_handled_total{grpc_code="OK",grpc_method="Check"' in text


async def test_flags_go_before_the_environment_and_that_before_the_services_own_ports(
    serve: Serve, tmp_path: Path
) -> None:
    flags = ("--metrics-listen", "127.0.0.1:0", "--log-format", "json", "--data-dir", str(tmp_path))
    environment = {
        "EVALPOOL_TOKEN_LISTEN": "localhost:0",
        "EVALPOOL_TOKEN_METRICS_LISTEN": "localhost:0",
    }
    service = await answering(await serve("token", *flags, **environment))
    assert service.endpoint.startswith("localhost:")
    assert service.metrics.startswith("127.0.0.1:")


async def test_its_keys_are_kept_over_a_restart(serve: Serve, tmp_path: Path) -> None:
    seen = []
    for _ in range(2):
        service = await token_service(serve, tmp_path)
        process, endpoint = service.process, service.endpoint
        async with open_channel(endpoint) as channel:
            stub: Any = token_pb2_grpc.TokenServiceStub(channel)
            info = (await stub.GetInfo(token_pb2.GetInfoRequest())).info
        seen.append((info.address, info.operator))
        process.terminate()
        assert await process.wait() == 0
    assert seen[0] == seen[1]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("nonsense", "the token service's database cannot be used: Could not parse"),
        ("oracle2://x", "the token service's database cannot be used: "),
        ("sqlite:////proc/nowhere/token.db", "unable to open database file"),
        ("postgresql+psycopg://me:hunter2@127.0.0.1:1/x", "connection"),
    ],
)
async def test_a_database_that_cannot_be_used_is_one_line(
    serve: Serve, tmp_path: Path, url: str, reason: str
) -> None:
    flags = ("--listen", "127.0.0.1:0", "--data-dir", str(tmp_path), "--database-url", url)
    line = await failure(await serve("token", *flags))
    assert reason in line
    assert "--database-url" in line
    assert "hunter2" not in line


async def test_a_ledger_under_another_key_is_one_line(serve: Serve, tmp_path: Path) -> None:
    process = (await token_service(serve, tmp_path)).process
    process.terminate()
    await process.wait()
    (tmp_path / "keys" / "token.json").unlink()

    second = await serve("token", "--listen", "127.0.0.1:0", "--data-dir", str(tmp_path))

    line = await failure(second)
    assert line.startswith("the database is the ledger of ")
    assert "give it the key file that it was begun with" in line


async def test_a_kind_of_dataset_that_cannot_be_loaded_is_one_line(
    serve: Serve, tmp_path: Path
) -> None:
    installed = tmp_path / "installed" / "riddles-1.0.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: riddles\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[evalpool.datasets]\nriddles = no_riddles:KIND\n")
    flags = ("--router-address", Identity.generate().address, "--listen", "127.0.0.1:0")
    data = ("--data-dir", str(tmp_path / "data"))

    process = await serve("dataset", *flags, *data, PYTHONPATH=str(installed.parent))

    assert await failure(process) == (
        "the entry point riddles cannot be loaded: No module named 'no_riddles'"
    )


async def test_an_embedding_model_and_tokenizer_that_are_swapped_are_one_line(
    serve: Serve, tmp_path: Path, model_store: ModelStore
) -> None:
    model, tokenizer = "all-MiniLM-L6-v2-int8", "all-MiniLM-L6-v2-tokenizer"
    for name in (model, tokenizer):
        ensure(model_store, find_model(name))
    flags = ("--model", tokenizer, "--tokenizer", model, "--models-dir", str(model_store.root))
    data = ("--listen", "127.0.0.1:0", "--data-dir", str(tmp_path))

    line = await failure(await serve("embedding", *flags, *data))

    assert "is no tokenizer" in line
    assert line.endswith("see --tokenizer")


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        (("--listen", "nowhere"), "--listen (EVALPOOL_TOKEN_LISTEN)"),
        (("--shutdown-grace", "soon"), "--shutdown-grace (EVALPOOL_TOKEN_SHUTDOWN_GRACE)"),
        (("--operator", "me"), "43 characters of base64url"),
        (("--data-dir", "/proc/nowhere"), "/proc/nowhere"),
    ],
)
async def test_a_bad_value_is_one_line(serve: Serve, flags: tuple[str, ...], what: str) -> None:
    assert what in await failure(await serve("token", *flags))


async def test_bad_values_are_told_together(serve: Serve) -> None:
    line = await failure(await serve("token", "--listen", "nowhere", "--log-level", "loud"))
    assert "--listen (EVALPOOL_TOKEN_LISTEN)" in line
    assert "; --log-level (EVALPOOL_TOKEN_LOG_LEVEL)" in line


async def test_an_unknown_service_is_one_line_with_the_known_ones(serve: Serve) -> None:
    assert "token, benchmark, dataset" in await failure(await serve("bank"))


async def test_no_service_is_one_line_after_the_usage(serve: Serve) -> None:
    process = await serve()
    out, err = await process.communicate()
    assert process.returncode == 1
    assert b"usage: evalpool serve SERVICE" in out
    assert err == b"error: name a service\n"


async def test_an_unknown_flag_is_status_2(serve: Serve) -> None:
    process = await serve("token", "--lissten", "x")
    _, err = await process.communicate()
    assert process.returncode == 2
    assert err == (
        b"error: unrecognized arguments: --lissten x; see `evalpool serve token --help`\n"
    )


async def test_the_help_lists_every_setting_with_its_variable(serve: Serve) -> None:
    process = await serve("token", "--help")
    out, _ = await process.communicate()
    assert process.returncode == 0
    text = " ".join(out.decode().split())
    for name in ("listen", "data-dir", "database-url", "operator", "ticker"):
        assert f"--{name} VALUE" in text
        assert f"EVALPOOL_TOKEN_{name.upper().replace('-', '_')}" in text
