from __future__ import annotations

from evalpool_dataset.outcome import Waiting
from evalpool_dataset.problem import Problem
from evalpool_dataset.wait import TOLD_AFTER_SECONDS, Wait

NOBODY = Problem("no worker takes work of the kind evaluate", "NO_WORKER")
TOO_SMALL = Problem("no worker holds the model", "NO_WORKER")


def test_a_wait_that_lasts_is_told_once_and_so_is_its_end() -> None:
    wait = Wait()
    assert wait.heard(NOBODY, 100.0) is None
    assert wait.heard(NOBODY, 99.9 + TOLD_AFTER_SECONDS) is None
    assert wait.heard(NOBODY, 100.0 + TOLD_AFTER_SECONDS) == Waiting(NOBODY)
    assert wait.heard(NOBODY, 200.0) is None
    assert wait.heard(None, 201.0) == Waiting(None)
    assert wait.heard(None, 202.0) is None


def test_a_short_wait_is_not_told() -> None:
    wait = Wait()
    for moment in range(20):
        assert wait.heard(NOBODY if moment % 4 else None, float(moment)) is None


def test_what_is_waited_for_may_change() -> None:
    wait = Wait()
    wait.heard(NOBODY, 0.0)
    assert wait.heard(TOO_SMALL, TOLD_AFTER_SECONDS) == Waiting(TOO_SMALL)
    assert wait.heard(NOBODY, TOLD_AFTER_SECONDS) == Waiting(NOBODY)


def test_what_is_no_wait_by_its_code_is_none() -> None:
    wait = Wait()
    for moment in (0.0, 100.0):
        assert wait.heard(Problem("the hold is refused", "HOLD_REFUSED"), moment) is None
