from __future__ import annotations

import pytest

from evalpool_router.scheduler import Rules
from evalpool_runtime.errors import (
    ResourceExhausted,
    reasons,
)
from tests.router.scheduler.herd_model import ALL_KINDS, HerdModel


def test_a_full_queue_refuses_with_a_delay_and_changes_nothing() -> None:
    herd = HerdModel(Rules(queue_units=10, caller_share=1.0))
    herd.score(8)
    with pytest.raises(ResourceExhausted) as refusal:
        herd.score(3)
    assert refusal.value.reason == reasons.ERROR_REASON_QUEUE_FULL
    assert refusal.value.retry_after is not None
    assert 1 <= refusal.value.retry_after <= 60
    assert herd.scheduler.totals().queued == 8
    herd.score(2)


def test_the_queue_is_bounded_in_bytes_too() -> None:
    herd = HerdModel(Rules(queue_bytes=1000))
    first = herd.infer(tokens=900)
    with pytest.raises(ResourceExhausted):
        herd.infer(tokens=200)
    herd.carry_out(herd.scheduler.cancel(first, herd.now))
    herd.infer(tokens=200)


def test_one_caller_cannot_fill_the_whole_queue() -> None:
    herd = HerdModel(Rules(queue_units=10, caller_share=0.5))
    herd.score(5, caller="greedy")
    with pytest.raises(ResourceExhausted):
        herd.infer(caller="greedy")
    herd.infer(caller="modest")


def test_what_no_queue_could_hold_is_not_to_be_tried_again() -> None:
    herd = HerdModel(Rules(queue_units=10, caller_share=0.5, queue_bytes=1000))
    with pytest.raises(ResourceExhausted) as refusal:
        herd.score(6)
    assert refusal.value.message == (
        "the request has 6 questions or prompts, and the herd's queue holds 5 of one caller at "
        "most; send fewer, or have --queue-units of the router raised"
    )
    assert refusal.value.retry_after is None
    with pytest.raises(ResourceExhausted, match=r"has 1001 bytes.* holds 1000 .* --queue-bytes"):
        herd.infer(tokens=1001)
    herd.score(5)


def test_load_and_totals_go_back_to_nothing() -> None:
    herd = HerdModel()
    herd.join("a", kinds=ALL_KINDS)
    herd.score(200)
    for _ in range(3):
        herd.infer()
    herd.run_to_the_end()
    view = herd.scheduler.worker("a", herd.now)
    assert view is not None
    assert (view.busy_slots, view.outstanding_tokens, view.completed) == (0, 0, 203)
    totals = herd.scheduler.totals()
    assert (totals.queued, totals.running, totals.completed, totals.failed) == (0, 0, 203, 0)
