"""What the scheduler goes by."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rules:
    """The scheduler's settings. Units of work are questions, and requests of one prompt.

    Attributes:
        queue_units: Units that may wait at most.
        queue_bytes: Bytes of requests in the router at most, waiting or under way.
        caller_share: The part of the queue that one caller may fill.
        ageing_seconds: Waiting this long weighs as much as twice the multiplier.
        packages_per_worker: Packages of questions at a worker at once: with two, its engine has the
            next one at hand when the last results of one are on their way.
        smallest_package: Questions in a package at least, where there are as many.
        largest_package: Questions in a package at most.
        package_tokens: Estimated tokens in a package at most, unless one question has more.
        losses: How often a question or prompt may have been at a worker that was lost before it is
            given up: it may be what brings them down.
        tries: How many workers may fail a question, or a request of which nobody has answered
            anything, by trouble that may be their own, before it is given up.
        crashes: How many workers may break off in a row while they are at a model, which answers
            nothing meanwhile, before it is taken for what brings them down; as many more as there
            are workers where it has answered before.
        lease_seconds: How long a worker is believed to live after a heartbeat.
        hung_seconds: How long a busy worker may get nowhere before it is treated as lost.
        busy_rest_seconds: Rest of a worker after it refused work as busy; doubles each time.
        failure_rest_seconds: Rest of a worker after a failure of its own; doubles each time.
        longest_rest_seconds: No rest of a worker is longer.
        model_rest_seconds: Rest of a model that brings workers down; doubles each time.
        longest_model_rest_seconds: No rest of a model is longer.
    """

    queue_units: int = 100_000
    queue_bytes: int = 128 * 1024 * 1024
    caller_share: float = 0.8
    ageing_seconds: float = 60.0
    packages_per_worker: int = 2
    smallest_package: int = 16
    largest_package: int = 64
    package_tokens: int = 16_384
    losses: int = 3
    tries: int = 3
    crashes: int = 5
    lease_seconds: float = 15.0
    hung_seconds: float = 600.0
    busy_rest_seconds: float = 0.1
    failure_rest_seconds: float = 0.5
    longest_rest_seconds: float = 30.0
    model_rest_seconds: float = 60.0
    longest_model_rest_seconds: float = 3600.0
