"""The leaderboard as a table."""

from __future__ import annotations

from evalpool.benchmark.v1 import benchmark_pb2
from evalpool.cli.output import enum_text, moment, print_table, short
from evalpool.common.v1.subject_kind_pb2 import (
    SUBJECT_KIND_DOCUMENT_SET,
    SUBJECT_KIND_MODEL,
    SubjectKind,
)


def print_leaderboard(
    board: benchmark_pb2.Leaderboard,
    *,
    kind: SubjectKind.ValueType = SUBJECT_KIND_MODEL,
    names: dict[str, str] | None = None,
) -> None:
    """Print a leaderboard.

    Args:
        board: The leaderboard.
        kind: What is entered in its pool.
        names: Names of participants by address, where they are known.
    """
    known = names or {}
    # Where a question gives a point or none, points are right answers.
    graded = any(row.full_marks > 1 for row in board.rows)
    title = f"Pool {short(board.pool)} · {board.funds} units · "
    if board.final:
        title += "final"
    else:
        title += f"{moment(board.snapshot_time)} UTC"
    print_table(
        [
            ">rank",
            "document set" if kind == SUBJECT_KIND_DOCUMENT_SET else "model",
            "participant",
            ">score",
            "95 % interval",
            ">points" if graded else ">correct",
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
                f"{row.points}/{row.done * row.full_marks}" if row.done else "",
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
