"""The log of a real process: what is in it, and what never is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROMPT = "who hid the money under the bridge"

SERVE = f"""
import asyncio, logging, sys
from pathlib import Path
import structlog
from grpc import aio
from evalpool.identity import Identity
from evalpool.token.v1 import token_pb2, token_pb2_grpc
from evalpool_runtime.logs import configure_logging
from evalpool_runtime.testing import running
from tests.runtime.small_service import SmallServicer, definition

async def fail(request):
    prompt = request.account
    raise KeyError("broken")

async def serve():
    servicer = SmallServicer()
    servicer.behaviour = fail
    async with running(definition(servicer), Path(sys.argv[1])) as service:
        token = Identity.generate().token(service.address)
        print(token)
        async with aio.insecure_channel(service.endpoint) as channel:
            stub = token_pb2_grpc.TokenServiceStub(channel)
            for authorization in (f"Bearer {{token}}", f"Bearer {{token}}x"):
                try:
                    await stub.GetBalance(
                        token_pb2.GetBalanceRequest(account={PROMPT!r}),
                        metadata=[("authorization", authorization), ("x-request-id", "mine")],
                    )
                except aio.AioRpcError as error:
                    print(error.details())

configure_logging("small", sys.argv[2], sys.argv[3])
logging.getLogger("library").warning("from a %s", "library")
asyncio.run(serve())
"""


def logged(data_dir: Path, level: str, form: str) -> tuple[list[str], str]:
    """What a process prints (its token, then two refusals), and its log."""
    process = subprocess.run(
        [sys.executable, "-c", SERVE, str(data_dir), level, form],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    return process.stdout.splitlines(), process.stderr


@pytest.mark.parametrize("form", ["text", "json"])
def test_neither_tokens_nor_what_callers_send_is_in_the_log(tmp_path: Path, form: str) -> None:
    (token, failure, _), log = logged(tmp_path, "debug", form)

    error_id = failure.rpartition(" ")[2]
    assert error_id in log, "what failed can be found"
    assert "KeyError: 'broken'" in log
    assert "GetBalance" in log
    assert "mine" in log, "the caller's request id"
    for part in token.split("."):
        assert part not in log
    assert PROMPT not in log


def test_every_line_is_an_object_of_its_service_where_machines_read(tmp_path: Path) -> None:
    _, log = logged(tmp_path, "debug", "json")

    records = [json.loads(line) for line in log.splitlines()]
    assert {record["service"] for record in records} == {"small"}
    assert all({"event", "level", "timestamp"} <= record.keys() for record in records)
    (library,) = [record for record in records if record["event"] == "from a library"]
    assert library["level"] == "warning"
    (failed,) = [record for record in records if record["event"] == "call failed"]
    assert failed["exception"].startswith("Traceback")
    codes = [record["code"] for record in records if record["event"] == "call"]
    assert codes == ["INTERNAL", "UNAUTHENTICATED"]


def test_what_is_below_the_level_is_left_out(tmp_path: Path) -> None:
    _, log = logged(tmp_path, "error", "json")

    assert [json.loads(line)["event"] for line in log.splitlines()] == ["call failed"]
