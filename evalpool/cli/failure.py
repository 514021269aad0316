"""Failures: each ends a command with one clear line and an exit status other than 0."""

from __future__ import annotations

from typing import Any

import grpc
import typer

from evalpool.backup import BackupError
from evalpool.errors import CallError
from evalpool.identity import InvalidKeyFile
from evalpool.models import ModelError
from evalpool.values import InvalidFields, InvalidValue
from evalpool.wallet import WalletError

REFUSED = 1
MISUSED = 2
INTERRUPTED = 130


class Failure(Exception):
    """What went wrong and what to do.

    Attributes:
        sentence: For people, in one line.
        reason: The name of an ErrorReason without its prefix; empty where there is none.
        status: The exit status.
        details: Further values for programs.
    """

    def __init__(
        self, sentence: str, *, reason: str = "", status: int = REFUSED, **details: Any
    ) -> None:
        super().__init__(sentence)
        self.sentence = " ".join(sentence.split())
        self.reason = reason
        self.status = status
        self.details = details

    @property
    def line(self) -> str:
        """The line for people."""
        return f"error: {self.sentence}" + (f" [{self.reason}]" if self.reason else "")

    @property
    def document(self) -> dict[str, Any]:
        """The JSON object for programs."""
        return {"error": self.sentence, "reason": self.reason, **self.details}


def failure_of(error: Exception) -> Failure | None:
    """The failure that an exception stands for; None for one that nobody foresaw."""
    match error:
        case Failure():
            return error
        case CallError():
            return _of_call(error)
        case grpc.aio.AioRpcError():
            return _of_call(CallError.of(error))
        case InvalidFields():
            violations = [
                {"field": v.field, "description": v.description} for v in error.violations
            ]
            return Failure(str(error), violations=violations)
        case WalletError() | InvalidKeyFile() | InvalidValue() | ModelError() | BackupError():
            return Failure(str(error))
        case OSError():
            where = f"{error.filename}: " if error.filename else ""
            return Failure(f"{where}{error.strerror or error}")
        case typer.TyperException():
            return _of_misuse(error)
        case _:
            return None


def _of_call(error: CallError) -> Failure:
    unreachable = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    if error.code in unreachable and not error.reason:
        return Failure(
            f"a service cannot be reached, or broke off ({error.message}); try again, or start a "
            "deployment with `evalpool up`, or set EVALPOOL_TOKEN, EVALPOOL_BENCHMARK, … to its "
            "endpoints",
            code=error.code.name,
        )
    if error.code is grpc.StatusCode.UNIMPLEMENTED and not error.reason:
        return Failure(
            f"the server does not know this call ({error.message}); it is another service or an "
            "older one: look at EVALPOOL_TOKEN, EVALPOOL_BENCHMARK, …",
            code=error.code.name,
        )
    sentence = error.message
    if error.reason == "TOKEN_FOR_ANOTHER_SERVER":
        sentence = (
            f"the server's address is {error.metadata.get('address')}, and was another when you "
            "met it first; if that is right, forget the old one with `evalpool wallet forget "
            "HOST:PORT`"
        )
    details: dict[str, Any] = {"code": error.code.name}
    if error.metadata:
        details["metadata"] = error.metadata
    if error.violations:
        details["violations"] = [
            {"field": v.field, "description": v.description} for v in error.violations
        ]
    if error.retry_after is not None:
        details["retry_after"] = error.retry_after
    return Failure(sentence, reason=error.reason or error.code.name, **details)


def _of_misuse(error: Any) -> Failure:
    """An unknown command, or arguments and options that do not fit."""
    problem = error.format_message().rstrip(".").replace("Value error, ", "")
    if problem.startswith("No such option: -") and problem[-1].isdigit():
        problem += " (a value that begins with a hyphen goes after --)"
    command = error.ctx.command_path if error.ctx is not None else "evalpool"
    return Failure(f"{problem}; see `{command} --help`", status=MISUSED)
