"""What a leaderboard says of an entry beside its figures."""

from __future__ import annotations

import pytest

from evalpool.benchmark.v1 import benchmark_pb2
from evalpool.cli.leaderboard import print_leaderboard
from evalpool.common.v1.subject_kind_pb2 import SUBJECT_KIND_DOCUMENT_SET


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


def test_graded_answers_are_shown_as_points_of_those_that_there_were_and_others_as_right_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    graded = benchmark_pb2.LeaderboardRow(
        entry="a", rank=1, points=37, full_marks=10, correct=1, done=12, total=12, score=37 / 120
    )
    print_leaderboard(benchmark_pb2.Leaderboard(pool="p", rows=[graded]))
    out = capsys.readouterr().out
    assert "points" in out
    assert "correct" not in out
    assert "37/120" in out
    right = benchmark_pb2.LeaderboardRow(
        entry="a", rank=1, points=9, full_marks=1, correct=9, done=12, total=12, score=0.75
    )
    print_leaderboard(benchmark_pb2.Leaderboard(pool="p", rows=[right]))
    out = capsys.readouterr().out
    assert "correct" in out
    assert "points" not in out
    assert "9/12" in out


def test_what_is_entered_is_called_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    row = benchmark_pb2.LeaderboardRow(entry="a", rank=1)
    board = benchmark_pb2.Leaderboard(pool="p", rows=[row])
    print_leaderboard(board)
    assert "model" in capsys.readouterr().out
    print_leaderboard(board, kind=SUBJECT_KIND_DOCUMENT_SET)
    out = capsys.readouterr().out
    assert "document set" in out
    assert "model" not in out


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
