"""What a leaderboard says of an entry beside its figures."""

from __future__ import annotations

import pytest

from evalpool.benchmark.v1 import benchmark_pb2
from evalpool.cli.leaderboard import print_leaderboard


@pytest.mark.parametrize(
    ("tied", "remark"), [(["b"], "tied with another"), (["b", "c"], "tied with 2 others")]
)
def test_a_tie_is_told_by_how_many_share_it(
    tied: list[str], remark: str, capsys: pytest.CaptureFixture[str]
) -> None:
    row = benchmark_pb2.LeaderboardRow(
        entry="a", rank=2, state=benchmark_pb2.ENTRY_STATE_SCORED, tied_with=tied, reward="1"
    )
    print_leaderboard(benchmark_pb2.Leaderboard(pool="p", rows=[row]))
    assert remark in capsys.readouterr().out


def test_what_keeps_an_entry_from_a_prize_goes_before_its_ties(
    capsys: pytest.CaptureFixture[str],
) -> None:
    row = benchmark_pb2.LeaderboardRow(
        entry="a", rank=1, tied_with=["b"], ineligible_reason="Disqualified."
    )
    print_leaderboard(benchmark_pb2.Leaderboard(pool="p", rows=[row]))
    out = capsys.readouterr().out
    assert "Disqualified." in out
    assert "tied" not in out
