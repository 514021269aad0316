"""Several threads where the cores are free, one where others use them."""

from __future__ import annotations

from evalpool_worker.engine.thread_choice import ThreadChoice


def test_it_begins_with_all_threads_and_stays_there_on_a_free_machine() -> None:
    choice = ThreadChoice(4)
    for second in range(100):
        assert choice.threads == 4
        choice.observe(4, wall=0.1, processor=0.098, now=float(second))


def test_one_bad_step_among_good_ones_is_borne() -> None:
    choice = ThreadChoice(4)
    for step in range(1_000):
        bad = step % 20 == 0
        choice.observe(4, wall=0.050 if bad else 0.005, processor=0.005, now=0.01 * step)
        assert choice.threads == 4


def test_bad_steps_one_after_another_lead_to_one_thread_soon() -> None:
    choice = ThreadChoice(4)
    lost = 0.0
    while choice.threads == 4:
        choice.observe(4, wall=0.050, processor=0.005, now=lost)
        lost += 0.050
    assert lost <= 0.3


def test_a_long_crowded_batch_leads_to_one_thread_and_a_free_core_back() -> None:
    choice = ThreadChoice(4)
    choice.observe(4, wall=1.0, processor=0.1, now=0.0)
    assert choice.threads == 1
    choice.observe(1, wall=0.1, processor=0.1, now=0.5)
    assert choice.threads == 1, "the pause is not over"
    choice.observe(1, wall=0.5, processor=0.1, now=5.0)
    assert choice.threads == 1, "others still use this core"
    choice.observe(1, wall=0.1, processor=0.1, now=6.0)
    assert choice.threads == 4


def test_pauses_grow_while_trying_fails() -> None:
    choice = ThreadChoice(2)
    now, pauses = 0.0, []
    for _ in range(10):
        choice.observe(2, wall=1.0, processor=0.1, now=now)
        begun = now
        while choice.threads == 1:
            now += 0.5
            choice.observe(1, wall=0.1, processor=0.1, now=now)
        pauses.append(now - begun)
    assert pauses[:4] == [1.0, 2.0, 4.0, 8.0]
    assert pauses[-1] == 60.0


def test_a_good_time_makes_the_next_pause_short_again() -> None:
    choice = ThreadChoice(2)
    choice.observe(2, wall=1.0, processor=0.1, now=0.0)
    choice.observe(1, wall=0.1, processor=0.1, now=1.0)
    choice.observe(2, wall=0.1, processor=0.1, now=100.0)
    choice.observe(2, wall=1.0, processor=0.1, now=101.0)
    choice.observe(1, wall=0.1, processor=0.1, now=102.0)
    assert choice.threads == 2


def test_a_limit_holds() -> None:
    choice = ThreadChoice(4)
    choice.limit(2)
    assert choice.threads == 2
