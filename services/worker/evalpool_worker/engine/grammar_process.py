"""The program of the process that follows grammars for one model; run with `python -m`.

llama.cpp keeps a stack for every way in which a text can be read by a grammar, and asks every stack
about every character of a token, so that a few lines of an ambiguous grammar take hours and all
memory. Only a process can be ended in the middle of that. This one loads the model's vocabulary
once, then forks for each socket of a stream that it is handed; the kernel ends the one that takes
too much.

Messages go over sockets that keep their bounds. To this process: `g` with the socket of one stream,
after it has said `v`. On that socket, once `v` has come there too, first the grammar, answered by
`t` or by `r` and what is wrong with it; then, again and again, `a` and a token, answered by `1`
where the grammar allows it, which moves it on, or else `0`; or `m`, answered by one bit a token of
the vocabulary.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
import struct
import sys
import time
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

from .library import start_library
from .token_candidates import as_array, new_candidates

TOKEN = struct.Struct("<i")
READY, OPEN, ACCEPT, MASK = b"v", b"g", b"a", b"m"
TAKEN, REFUSED, ALLOWED, FORBIDDEN = b"t", b"r", b"1", b"0"
LONGEST_MESSAGE = 128 * 1024

# Processor time for reading a grammar. The other streams do not wait for that.
_READING_SECONDS = 1.0

# Processor time for each question, by the vocabulary's size: what asking about all of it takes, and
# more. What a question does not use is kept for others, up to so many questions' worth.
_QUESTION_SECONDS = 0.001
_TOKEN_SECONDS = 4e-7
_KEPT_QUESTIONS = 10
_LEAST_SECONDS = 0.001

_MEMORY_BYTES = 256 * 2**20
_STANDARD_INPUT = 0


class Follower:
    """Follows one grammar.

    Args:
        vocab: The `llama_vocab`.
        n_vocab: Its tokens.
        grammar: GBNF.

    Raises:
        ValueError: The grammar can't be read.
    """

    def __init__(self, vocab: Any, n_vocab: int, grammar: bytes) -> None:
        forwarder = start_library()
        forwarder.take_errors()
        self._n_vocab = n_vocab
        self._sampler = llama_cpp.llama_sampler_init_grammar(vocab, grammar, b"root")
        if not self._sampler:
            raise ValueError("; ".join(forwarder.take_errors()) or "it needs a rule named root")

    def answer(self, question: bytes) -> bytes:
        """Answer one question of the stream."""
        if question == MASK:
            return np.packbits(self._allowed(np.arange(self._n_vocab, dtype=np.int32))).tobytes()
        [token] = TOKEN.unpack(question[1:])
        if not self._allowed(np.array([token], dtype=np.int32))[0]:
            return FORBIDDEN
        llama_cpp.llama_sampler_accept(self._sampler, token)
        return ALLOWED

    def _allowed(self, tokens: Any) -> Any:
        candidates = new_candidates(tokens, 0.0)
        array = as_array(candidates)
        llama_cpp.llama_sampler_apply(self._sampler, ctypes.byref(array))
        return np.isfinite(candidates["logit"])


def follow(channel: socket.socket, vocab: Any, n_vocab: int) -> None:
    """Answer one stream until it hangs up, within its processor time."""
    share = _QUESTION_SECONDS + _TOKEN_SECONDS * n_vocab
    left = _READING_SECONDS
    channel.send(READY)
    follower: Follower | None = None
    while question := channel.recv(LONGEST_MESSAGE):
        # Where the timer runs out, the kernel ends the process, whatever it is at.
        signal.setitimer(signal.ITIMER_PROF, left)
        begun = time.process_time()
        try:
            if follower is None:
                follower = Follower(vocab, n_vocab, question)
                answer = TAKEN
            else:
                answer = follower.answer(question)
        except ValueError as error:
            answer = REFUSED + str(error).encode()[:500]
        signal.setitimer(signal.ITIMER_PROF, 0)
        left += share - (time.process_time() - begun)
        left = max(_LEAST_SECONDS, min(share * _KEPT_QUESTIONS, left))
        channel.send(answer)


def confine() -> None:
    """Take from this process, for good, what following a grammar does not need."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    memory = pages * resource.getpagesize() + _MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    for limit in (resource.RLIMIT_NOFILE, resource.RLIMIT_CORE, resource.RLIMIT_NPROC):
        resource.setrlimit(limit, (0, 0))


def main() -> None:
    """Load the vocabulary of the model at the path that is the argument, and serve."""
    # Children are not waited for.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    start_library()
    parameters = llama_cpp.llama_model_default_params()
    parameters.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(sys.argv[1].encode(), parameters)
    if not model:
        sys.exit(f"{sys.argv[1]} can't be read any more")
    vocab = llama_cpp.llama_model_get_vocab(model)
    n_vocab = int(llama_cpp.llama_vocab_n_tokens(vocab))
    server = socket.socket(fileno=_STANDARD_INPUT)
    server.send(READY)
    while True:
        message, sockets, _, _ = socket.recv_fds(server, 1, 1)
        if not message:
            return
        channel = socket.socket(fileno=sockets[0])
        try:
            child = os.fork()
        except OSError:
            # Too little memory: the stream finds its socket closed, and the next may be luckier.
            channel.close()
            continue
        if child == 0:
            server.close()
            try:
                confine()
                follow(channel, vocab, n_vocab)
            finally:
                # Nothing of what this process began with is the child's to end.
                os._exit(0)
        channel.close()


if __name__ == "__main__":
    main()
