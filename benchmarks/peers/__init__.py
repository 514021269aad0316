"""Other programs that do the same work, in environments of their own under `.peers/`."""

from benchmarks.peers.environments import (
    PeerUnavailable,
    llama_cpp_python_server,
    llama_cpp_tools,
    lm_eval_python,
)

__all__ = [
    "PeerUnavailable",
    "llama_cpp_python_server",
    "llama_cpp_tools",
    "lm_eval_python",
]
