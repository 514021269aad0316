"""The leaderboard as a table."""

from __future__ import annotations

from evalpool.benchmark.v1 import benchmark_pb2
from evalpool.cli.output import enum_text, moment, print_table, short


def print_leaderboard(
    board: benchmark_pb2.Leaderboard, *, names: dict[str, str] | None = None
) -> None:
    """Print a leaderboard.

    Args:
        board: The leaderboard.
        names: Names of participants by address, where they are known.
    """
    known = names or {}
    title = f"Pool {short(board.pool)} · {board.funds} units · "
    if board.final:
        title += "final"
    else:
        title += f"{moment(board.snapshot_time)} UTC"
    print_table(
        [
            ">rank",
            "model",
            "participant",
            ">score",
            "95 % interval",
            ">correct",
            "status",
            ">reward",
            "remark",
        ],
        [
            (
                row.rank or "",
                row.subject_name or short(row.subject),
                known.get(row.participant, short(row.participant)),
                f"{row.score:.4f}" if row.done else "",
                f"{row.score_low:.3f}–{row.score_high:.3f}" if row.done else "",
                f"{row.correct}/{row.done}" if row.done else "",
                _status(row),
                row.reward,
                _remark(row),
            )
            for row in board.rows
        ],
        title=title,
    )


def _status(row: benchmark_pb2.LeaderboardRow) -> str:
    text = enum_text(benchmark_pb2.EntryState.Name(row.state), "ENTRY_STATE_")
    return f"{text} {row.done}/{row.total}" if row.done < row.total else text


def _remark(row: benchmark_pb2.LeaderboardRow) -> str:
    if row.ineligible_reason:
        return row.ineligible_reason
    match len(row.tied_with):
        case 0:
            return ""
        case 1:
            return "tied with another"
        case others:
            return f"tied with {others} others"
