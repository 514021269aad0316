"""lm-evaluation-harness, kept loaded in a process of its own."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.peers.environments import PeerUnavailable, lm_eval_python
from evalpool_worker.engine.base import ChoiceQuestion

_DRIVER = Path(__file__).with_name("lm_eval_driver.py")


@dataclass(frozen=True, slots=True)
class Scored:
    """What the harness made of some questions.

    Attributes:
        seconds: That it took.
        sums: Each question's sums of log-probabilities, a choice each.
    """

    seconds: float
    sums: tuple[tuple[float, ...], ...]


class LmEval:
    """A loaded harness; answers one call after another."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._read()

    def score(self, questions: Sequence[ChoiceQuestion]) -> Scored:
        """Score questions as `--tasks social_iqa` does."""
        pairs = [(each.prompt, choice) for each in questions for choice in each.choices]
        stdin = self._process.stdin
        if stdin is None:
            raise AssertionError("the process was started with pipes")
        stdin.write(json.dumps({"pairs": pairs}) + "\n")
        stdin.flush()
        answer = self._read()
        sums = iter(answer["sums"])
        return Scored(
            answer["seconds"],
            tuple(tuple(next(sums) for _ in each.choices) for each in questions),
        )

    def _read(self) -> Any:
        stdout = self._process.stdout
        line = stdout.readline() if stdout is not None else ""
        if not line:
            raise PeerUnavailable("lm-evaluation-harness ended; its messages are above")
        return json.loads(line)


@contextmanager
def loaded_lm_eval(kind: Literal["hf", "gguf"], where: str, threads: int) -> Iterator[LmEval]:
    """The harness with a model.

    Args:
        kind: Its own model type.
        where: A GGUF file for `hf`, a server's base URL for `gguf`.
        threads: Threads that torch computes with.

    Raises:
        PeerUnavailable: It cannot be set up.
    """
    python = lm_eval_python()
    with tempfile.TemporaryDirectory() as cache:
        surroundings = {
            "PATH": "/usr/bin:/bin",
            "HOME": cache,
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": str(threads),
        }
        process = subprocess.Popen(
            # -P: the folder of this module would hide the packages of the same names.
            [str(python), "-P", str(_DRIVER), kind, where],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=surroundings,
        )
        try:
            yield LmEval(process)
        finally:
            process.kill()
            process.wait()
