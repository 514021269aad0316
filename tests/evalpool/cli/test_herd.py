"""What the tables of the herd say of workers and models that get no work."""

from __future__ import annotations

from datetime import timedelta

import pytest
from google.protobuf.duration_pb2 import Duration

from evalpool.cli.herd import print_herd
from evalpool.router.v1 import router_pb2


def seconds(number: float) -> Duration:
    made = Duration()
    made.FromTimedelta(timedelta(seconds=number))
    return made


def printed(found: router_pb2.GetStatisticsResponse, capsys: pytest.CaptureFixture[str]) -> str:
    print_herd(found)
    return capsys.readouterr().out


def test_a_worker_that_rests_is_shown_with_how_much_longer(
    capsys: pytest.CaptureFixture[str],
) -> None:
    worker = router_pb2.Worker(
        address="a", slots=2, state=router_pb2.WORKER_STATE_RESTING, rest=seconds(7.26)
    )
    out = printed(router_pb2.GetStatisticsResponse(worker_details=[worker]), capsys)
    assert "resting 7.3 s" in out


def test_a_worker_that_drains_and_one_that_gets_work_are_told_apart(
    capsys: pytest.CaptureFixture[str],
) -> None:
    draining = router_pb2.Worker(address="a", state=router_pb2.WORKER_STATE_DRAINING)
    ready = router_pb2.Worker(address="b", state=router_pb2.WORKER_STATE_READY)
    found = router_pb2.GetStatisticsResponse(
        workers=4, resting_workers=1, draining_workers=2, worker_details=[draining, ready]
    )
    out = printed(found, capsys)
    assert "1 ready, 1 resting, 2 draining" in out
    rows = [line.split() for line in out.splitlines()]
    assert [row[1] for row in rows if row[:1] in (["a"], ["b"])] == ["draining", "ready"]


def test_a_model_that_is_not_tried_is_shown_with_how_much_longer(
    capsys: pytest.CaptureFixture[str],
) -> None:
    resting = router_pb2.ModelStatistics(digest="ab" * 32, rest=seconds(48))
    out = printed(router_pb2.GetStatisticsResponse(models=[resting]), capsys)
    (row,) = [line for line in out.splitlines() if "ababababab…" in line]
    assert row.rstrip().endswith("resting 48.0 s")


def test_the_rate_says_over_how_long_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    found = router_pb2.GetStatisticsResponse(
        completed_per_second=12.34, tokens_per_second=4321.4, rate_window=seconds(59.6)
    )
    assert "12.3 completed and 4321 tokens a second, over 60 s" in printed(found, capsys)
