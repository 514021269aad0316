"""The router's own metrics, beside those that every service has."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from evalpool_router.scheduler import Kind, Scheduler
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
        self.workers = Gauge(
            "evalpool_router_workers",
            "Workers with a lease: ready, draining, or resting after a refusal or failure.",
            ["state"],
            registry=registry,
        )
        self.slots = Gauge("evalpool_router_slots", "Slots of all workers.", registry=registry)
        self.busy_slots = Gauge(
            "evalpool_router_busy_slots", "Slots that are taken.", registry=registry
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
        """Set the gauges to how things stand."""
        states = dict.fromkeys(("ready", "draining", "resting"), 0)
        slots = busy = outstanding = 0
        for worker in scheduler.workers(now):
            state = "draining" if worker.draining else "resting" if worker.resting else "ready"
            states[state] += 1
            slots += worker.slots
            busy += worker.busy_slots
            outstanding += worker.outstanding_tokens
        for state, count in states.items():
            self.workers.labels(state).set(count)
        self.slots.set(slots)
        self.busy_slots.set(busy)
        self.outstanding.set(outstanding)
        self.running.set(scheduler.totals().running)
        for kind in Kind:
            lanes = (Lane(kind, scoring) for scoring in (False, True))
            self.waiting.labels(kind.name.lower()).set(
                sum(scheduler.queued_of(lane) for lane in lanes)
            )
