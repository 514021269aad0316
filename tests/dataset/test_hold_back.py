"""How long nothing new is begun while the herd sends work away."""

from __future__ import annotations

from evalpool_dataset.hold_back import HoldBack


def test_nothing_is_held_back_at_first() -> None:
    assert HoldBack().seconds(100.0) == 0


def test_it_doubles_with_each_time_up_to_the_longest() -> None:
    held, now, seen = HoldBack(), 0.0, []
    for _ in range(8):
        held.sent_away(now, None)
        seen.append(held.seconds(now))
        now += held.seconds(now)
        assert held.seconds(now) == 0
    assert seen == [1, 2, 4, 8, 16, 30, 30, 30]


def test_it_stays_the_longest_however_often() -> None:
    held = HoldBack()
    for turn in range(10_000):
        held.sent_away(turn * 100.0, None)
    assert held.seconds(9_999 * 100.0) == 30


def test_what_is_sent_away_together_is_one_time() -> None:
    held = HoldBack()
    for _ in range(4):
        held.sent_away(5.0, None)
    assert held.seconds(5.0) == 1


def test_the_herds_own_delay_is_kept_to() -> None:
    held = HoldBack()
    held.sent_away(0.0, 0.01)
    assert held.seconds(0.0) == 0.01
    held.sent_away(0.0, 60.0)
    assert held.seconds(0.0) == 60
    # A shorter one does not end it.
    held.sent_away(1.0, 2.0)
    assert held.seconds(1.0) == 59


def test_a_delay_of_nothing_is_none() -> None:
    held = HoldBack()
    held.sent_away(0.0, 0.0)
    assert held.seconds(0.0) == 1


def test_after_an_answer_it_begins_anew() -> None:
    held = HoldBack()
    for now in (0.0, 10.0, 20.0):
        held.sent_away(now, None)
    assert held.seconds(20.0) == 4
    held.answered()
    held.sent_away(30.0, None)
    assert held.seconds(30.0) == 1
