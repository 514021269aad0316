"""With how many threads to compute the next batch on a machine that others use too.

The threads of one batch wait for each other about a thousand times. Where one of them has to wait
for a core, all do, every time: on two cores under the load of others, a step with two threads took
8 to 30 times as long as with one. Whether that is so shows in the thread that calls llama.cpp: it
spins while it waits for short, so with cores of its own its processor time is its wall time. One
bad step says little: what counts is the time that was lost lately, since one thread alone loses
most of what the other cores would have computed.
"""

from __future__ import annotations

import math

# Seconds of computing that are looked back on, the newest most.
_WINDOW = 0.25

# Wall time over processor time, above which several threads are in each other's way, and below
# which one thread has a core of its own.
_CROWDED = 2.0
_ALONE = 1.2

# Seconds with one thread before several are tried again: at first, and at most.
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0

# Batches shorter than this say nothing: the clocks are too coarse.
_SHORTEST = 0.002


class ThreadChoice:
    """Chooses between all threads and one. The number does not change what is computed.

    Args:
        most: Threads to use where nobody else wants the cores.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._crowded = False
        self._pause = _FIRST_PAUSE
        self._until = 0.0
        self._wall = self._processor = _WINDOW

    @property
    def threads(self) -> int:
        """For the next batch."""
        return 1 if self._crowded else self._most

    def limit(self, most: int) -> None:
        """Use at most this many threads."""
        self._most = most

    def observe(self, threads: int, wall: float, processor: float, now: float) -> None:
        """Learn from a batch.

        Args:
            threads: That computed it.
            wall: Seconds that it took.
            processor: Seconds of them that the calling thread had a core.
            now: Monotonic, seconds.
        """
        if wall < _SHORTEST:
            return
        if threads > 1:
            kept = math.exp(-wall / _WINDOW)
            self._wall = kept * self._wall + wall
            self._processor = kept * self._processor + processor
            if self._wall > _CROWDED * self._processor:
                self._crowded = True
                self._wall = self._processor = _WINDOW
                self._until = now + self._pause
                self._pause = min(2 * self._pause, _LONGEST_PAUSE)
            elif now > self._until + self._pause:
                # It went well for as long as the last pause: begin small next time.
                self._pause = _FIRST_PAUSE
        elif self._crowded and now >= self._until and wall < _ALONE * processor:
            self._crowded = False
            self._until = now
