"""The router's own metrics, beside those that every service has."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from evalpool_router.scheduler import Departure, Kind, Rest, Scheduler, WorkerState
from evalpool_router.scheduler.work import Lane
from evalpool_runtime.metrics import BUCKETS


class RouterMetrics:
    """What the herd does, for Prometheus. No label is by request, caller or prompt."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "evalpool_router_requests_total",
            "Requests for inference taken in.",
            ["method"],
            registry=registry,
        )
        self.errors = Counter(
            "evalpool_router_request_errors_total",
            "Requests for inference that ended with an error, by its reason.",
            ["method", "reason"],
            registry=registry,
        )
        self.active = Gauge(
            "evalpool_router_active_requests",
            "Requests for inference waiting or under way.",
            ["method"],
            registry=registry,
        )
        self.stages = Histogram(
            "evalpool_router_stage_seconds",
            "Seconds of a request until it was first sent to a worker (queue), from then until the "
            "first of its answer (first_result), and from beginning to end (total).",
            ["method", "stage"],
            registry=registry,
            buckets=BUCKETS,
        )
        self.selections = Counter(
            "evalpool_router_selections_total",
            "Times that a worker was chosen.",
            ["kind"],
            registry=registry,
        )
        self.retries = Counter(
            "evalpool_router_retries_total",
            "Times that a worker did not do its work, so that others get it: it was busy, could "
            "not be reached, was lost, left work undone, or had trouble that may be its own.",
            ["cause"],
            registry=registry,
        )
        for cause in ("busy", "unreachable", "lost", "undone", "trouble"):
            self.retries.labels(cause)
        # Of a worker that lapses or hangs no stream breaks: the scheduler takes its work back.
        self._taken_back = _Growing(self.retries.labels("lost"))
        self.discarded = Counter(
            "evalpool_router_results_discarded_total",
            "Results that did not count: of another model, generation or dispatch, or malformed.",
            registry=registry,
        )
        self.questions = Counter(
            "evalpool_router_questions_total",
            "Questions scored or failed, and prompts answered.",
            registry=registry,
        )
        self.tokens = Counter(
            "evalpool_router_computed_tokens_total",
            "Tokens that workers computed for what counted.",
            registry=registry,
        )
        self.registrations = Counter(
            "evalpool_router_registrations_total",
            "Registrations of workers under a new generation.",
            registry=registry,
        )
        self.departures = _Growing(
            Counter(
                "evalpool_router_departures_total",
                "Workers that lost their lease: they left, were replaced by their next start, were "
                "dismissed by the operator, let the lease lapse, or hung.",
                ["cause"],
                registry=registry,
            ),
            Departure,
        )
        self.workers = Gauge(
            "evalpool_router_workers",
            "Workers with a lease: ready, draining, or resting after a refusal or failure.",
            ["state"],
            registry=registry,
        )
        self.rests = _Growing(
            Counter(
                "evalpool_router_rests_total",
                "Rests given to workers, which open their circuit for a while: they refused work "
                "as busy, failed, or could not be reached.",
                ["cause"],
                registry=registry,
            ),
            Rest,
        )
        self.model_rests = _Growing(
            Counter(
                "evalpool_router_model_rests_total",
                "Rests given to models that bring workers down.",
                registry=registry,
            )
        )
        self.resting_models = Gauge(
            "evalpool_router_resting_models",
            "Models that are not tried, because workers were lost over them.",
            registry=registry,
        )
        self.slots = Gauge("evalpool_router_slots", "Slots of all workers.", registry=registry)
        self.busy_slots = Gauge(
            "evalpool_router_busy_slots", "Slots that are taken.", registry=registry
        )
        self.free_slots = Gauge(
            "evalpool_router_free_slots",
            "Slots that could take work now: those not taken of workers that are ready.",
            registry=registry,
        )
        self.waiting = Gauge(
            "evalpool_router_waiting",
            "Questions and prompts waiting, by the kind of work.",
            ["kind"],
            registry=registry,
        )
        self.running = Gauge(
            "evalpool_router_running", "Questions and prompts at workers.", registry=registry
        )
        self.outstanding = Gauge(
            "evalpool_router_outstanding_tokens",
            "Estimated tokens of what workers have not finished.",
            registry=registry,
        )

    def observe(self, scheduler: Scheduler, now: float) -> None:
        """Set the gauges to how things stand, and let the scheduler's own counts grow."""
        states = dict.fromkeys(WorkerState, 0)
        slots = busy = free = outstanding = 0
        for worker in scheduler.workers(now):
            states[worker.state] += 1
            slots += worker.slots
            busy += worker.busy_slots
            free += worker.free_slots
            outstanding += worker.outstanding_tokens
        for state, count in states.items():
            self.workers.labels(state.name.lower()).set(count)
        self.slots.set(slots)
        self.busy_slots.set(busy)
        self.free_slots.set(free)
        self.outstanding.set(outstanding)
        self.running.set(scheduler.totals().running)
        self.resting_models.set(scheduler.resting_models(now))
        for kind in Kind:
            lanes = (Lane(kind, scoring) for scoring in (False, True))
            self.waiting.labels(kind.name.lower()).set(
                sum(scheduler.queued_of(lane) for lane in lanes)
            )
        self.departures.reach(scheduler.departures.items())
        self.rests.reach(scheduler.rests.items())
        self._taken_back.reach([("", scheduler.taken_back)])
        self.model_rests.reach([("", scheduler.model_rests)])


class _Growing:
    """A counter of what is counted elsewhere.

    Args:
        counter: With one label, or none.
        causes: The values of its label, each of which is there from the beginning.
    """

    def __init__(self, counter: Counter, causes: Iterable[str] = ()) -> None:
        self._counters = {cause: counter.labels(cause) for cause in causes} or {"": counter}
        self._reached = dict.fromkeys(self._counters, 0)

    def reach(self, counts: Iterable[tuple[str, int]]) -> None:
        """Grow to these counts, by the value of the label."""
        for cause, count in counts:
            self._counters[cause].inc(count - self._reached[cause])
            self._reached[cause] = count
