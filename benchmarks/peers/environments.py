"""Sets peers up from the package index, each in an environment of its own, once.

What was set up is kept under `.peers/` at the top of the project, with a stamp that names the
versions; other versions make it anew. llama.cpp's own tools are built from the sources inside the
llama-cpp-python package that the worker runs on, so that both sides compute with the same kernels.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from filelock import FileLock

from evalpool_worker.engine.shape import available_cores

BUILD = Path(__file__).parents[2] / ".peers"
TOOLS = ("llama-bench", "llama-server", "llama-perplexity")
LEFT_OUT = (
    "LLAMA_OPENSSL",
    "LLAMA_BUILD_TESTS",
    "LLAMA_BUILD_EXAMPLES",
    "LLAMA_USE_PREBUILT_UI",
)
LM_EVAL = (
    "torch==2.13.0",
    "lm-eval[api]==0.4.13",
    "transformers==5.23.0",
    "accelerate==1.15.0",
    "gguf==0.19.0",
)


class PeerUnavailable(Exception):
    """A peer cannot be set up here; the text says why. It is reported as such, never estimated."""


def llama_cpp_tools() -> Path:
    """The folder with llama.cpp's `llama-bench`, `llama-server` and `llama-perplexity`.

    Raises:
        PeerUnavailable: They cannot be built.
    """
    version = metadata.version("llama-cpp-python")

    def make(folder: Path, run: Run) -> None:
        # pip asks the package for its metadata, and so needs what builds it.
        download = [*_pip(sys.executable), "download", "--no-deps", "--no-build-isolation"]
        source = ["--no-binary", ":all:", "--dest", str(folder)]
        run([*download, *source, f"llama-cpp-python=={version}"])
        (archive,) = folder.glob("*.tar.gz")
        with tarfile.open(archive) as packed:
            packed.extractall(folder, filter="data")
        archive.unlink()
        (sources,) = folder.glob("*/vendor/llama.cpp")
        tree = str(folder / "tree")
        options = [f"-D{name}=OFF" for name in LEFT_OUT]
        run(["cmake", "-S", str(sources), "-B", tree, "-DCMAKE_BUILD_TYPE=Release", *options])
        run(["cmake", "--build", tree, "--parallel", str(available_cores()), "--target", *TOOLS])

    return _once("llama.cpp", f"llama-cpp-python {version}", make) / "tree" / "bin"


def llama_cpp_python_server() -> Path:
    """A Python that has llama-cpp-python with its own HTTP server.

    Raises:
        PeerUnavailable: It cannot be installed.
    """
    wanted = (f"llama-cpp-python[server]=={metadata.version('llama-cpp-python')}",)
    return _environment("llama-cpp-python-server", wanted)


def lm_eval_python() -> Path:
    """A Python that has lm-evaluation-harness with torch and transformers.

    Raises:
        PeerUnavailable: It cannot be installed.
    """
    return _environment("lm-eval", LM_EVAL)


Run = Callable[[Sequence[str]], None]


def _environment(name: str, packages: Sequence[str]) -> Path:
    def make(folder: Path, run: Run) -> None:
        run([sys.executable, "-m", "venv", str(folder / "venv")])
        run([*_pip(str(folder / "venv" / "bin" / "python")), "install", *packages])

    return _once(name, " ".join(packages), make) / "venv" / "bin" / "python"


def _pip(python: str) -> list[str]:
    return [python, "-m", "pip", "--disable-pip-version-check", "--quiet"]


def _once(name: str, version: str, make: Callable[[Path, Run], None]) -> Path:
    """The folder of a peer, made where it is not there or of another version."""
    folder, log = BUILD / name, BUILD / f"{name}.log"
    stamp = folder / "version"
    BUILD.mkdir(exist_ok=True)
    with FileLock(BUILD / f"{name}.lock"):
        if stamp.exists() and stamp.read_text() == version:
            return folder
        print(f"setting up {name} ({version}); this takes minutes", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        with log.open("w") as output:

            def run(command: Sequence[str]) -> None:
                try:
                    subprocess.run(
                        command, check=True, stdout=output, stderr=output, env=_surroundings()
                    )
                except (OSError, subprocess.CalledProcessError) as error:
                    raise PeerUnavailable(f"{name} cannot be set up: {error}; see {log}") from error

            make(folder, run)
        stamp.write_text(version)
    return folder


def _surroundings() -> Mapping[str, str]:
    """The environment, with this environment's programs (cmake, ninja) found first."""
    return os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
