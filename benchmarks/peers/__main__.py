"""Set every peer up: `python -m benchmarks.peers`. Programs that need one also do it themselves."""

from __future__ import annotations

from benchmarks.peers.environments import (
    PeerUnavailable,
    llama_cpp_python_server,
    llama_cpp_tools,
    lm_eval_python,
)


def main() -> None:
    """Set up all, and exit with 1 where one cannot be."""
    missing = 0
    for make in (llama_cpp_tools, llama_cpp_python_server, lm_eval_python):
        try:
            print(f"{make.__name__}: {make()}")
        except PeerUnavailable as error:
            missing += 1
            print(f"{make.__name__}: {error}")
    raise SystemExit(min(missing, 1))


if __name__ == "__main__":
    main()
