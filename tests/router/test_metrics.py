"""What the router's metrics say of the herd."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from evalpool_router.metrics import RouterMetrics
from evalpool_router.scheduler import Rules
from evalpool_runtime.errors import FailedPrecondition, reasons
from tests.router.router_harness import RouterHarness, infer, someone, text_of
from tests.router.scheduler.herd_model import MODEL, HerdModel

LOAD_FAILED = FailedPrecondition(reasons.ERROR_REASON_MODEL_LOAD_FAILED, "the disk is full")


class Watched:
    """A herd and its metrics."""

    def __init__(self, rules: Rules) -> None:
        self.herd = HerdModel(rules)
        self._registry = CollectorRegistry()
        self._metrics = RouterMetrics(self._registry)

    def value(self, name: str, **labels: str) -> float | None:
        """A sample as it stands now."""
        self._metrics.observe(self.herd.scheduler, self.herd.now)
        return self._registry.get_sample_value(f"evalpool_router_{name}", labels)


def test_workers_and_their_slots_are_told_by_whether_they_get_work() -> None:
    watched = Watched(Rules(failure_rest_seconds=5))
    for address in ("ready", "resting", "draining"):
        watched.herd.join(address, slots=3)
    watched.herd.drain("draining", True)
    watched.herd.infer()
    watched.herd.fail(watched.herd.at("ready")[0], LOAD_FAILED)
    assert watched.herd.at("resting")
    states = {state: watched.value("workers", state=state) for state in ("ready", "resting")}
    assert states == {"ready": 1, "resting": 1}
    assert watched.value("workers", state="draining") == 1
    assert (watched.value("slots"), watched.value("busy_slots")) == (9, 1)
    assert watched.value("free_slots") == 2
    watched.herd.wait(5)
    assert watched.value("workers", state="resting") == 0
    assert watched.value("free_slots") == 5


def test_rests_and_departures_are_there_from_the_beginning_and_grow_by_what_happens() -> None:
    watched = Watched(Rules(failure_rest_seconds=1, lease_seconds=15))
    assert watched.value("rests_total", cause="failure") == 0
    assert watched.value("departures_total", cause="hung") == 0
    watched.herd.join("a", slots=1)
    for failed in (1, 2):
        watched.herd.infer()
        watched.herd.fail(watched.herd.at("a")[0], LOAD_FAILED)
        assert watched.value("rests_total", cause="failure") == failed
        assert watched.value("rests_total", cause="failure") == failed
        watched.herd.wait(failed)
    watched.herd.wait(15)
    assert watched.value("departures_total", cause="lapsed") == 1
    assert watched.value("rests_total", cause="busy") == 0


def test_work_that_was_taken_back_from_a_lost_worker_counts_as_tried_again() -> None:
    watched = Watched(Rules(lease_seconds=15))
    assert watched.value("retries_total", cause="lost") == 0
    watched.herd.join("a", slots=2)
    watched.herd.infer()
    watched.herd.infer()
    watched.herd.wait(15)
    assert watched.value("departures_total", cause="lapsed") == 1
    assert watched.value("retries_total", cause="lost") == 2
    watched.herd.join("a")
    watched.herd.complete(watched.herd.at("a")[0])
    watched.herd.wait(15)
    assert watched.value("retries_total", cause="lost") == 3


def test_a_model_that_brings_workers_down_is_counted_while_it_rests() -> None:
    watched = Watched(Rules(crashes=1, model_rest_seconds=10, lease_seconds=1000))
    watched.herd.join("a")
    watched.herd.infer()
    assert watched.value("resting_models") == 0
    watched.herd.crash("a")
    assert (watched.value("resting_models"), watched.value("model_rests_total")) == (1, 1)
    watched.herd.wait(10)
    assert (watched.value("resting_models"), watched.value("model_rests_total")) == (0, 1)


async def test_no_label_is_by_caller_request_model_or_prompt(router: RouterHarness) -> None:
    worker = await router.worker()
    stub = await someone(router)
    await text_of(stub, infer("What is the capital?"))
    (sent,) = worker.prompted
    assert (sent.reference, sent.prompt) == ("mine", "What is the capital?")
    registry = router.service.running.runtime.metrics
    values = {
        value
        for metric in registry.collect()
        for sample in metric.samples
        for value in sample.labels.values()
    }
    assert "Infer" in values
    assert not values & {sent.reference, sent.prompt, MODEL, worker.address}
    # An address has 43 characters, a digest 64.
    assert max(map(len, values)) < 43
