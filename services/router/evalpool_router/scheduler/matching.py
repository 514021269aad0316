"""Which work goes to which worker next."""

from __future__ import annotations

from evalpool_router.scheduler.board import Board
from evalpool_router.scheduler.packaging import take_package


def match(board: Board, now: float) -> None:
    """Send out what can be sent out: no worker with room is left for whom there is work."""
    while True:
        turns = []
        for lane, queue in board.queues.items():
            if not queue.waiting:
                continue
            met = [each for each in queue.requirements if board.pool.has_room(lane, each)]
            turn = queue.peek(met) if met else None
            if turn is not None:
                turns.append(turn)
        if not turns:
            return
        _, portion = min(turns, key=lambda turn: turn[0])
        request = portion.ticket.request
        worker = board.pool.choose(request.lane, request.model, portion.requirement)
        if worker is None:
            raise AssertionError("where there is room there is a worker to choose")
        sharing = board.pool.able(
            request.kind, request.model, request.model_bytes, portion.requirement.shunned
        )
        units = take_package(portion, sharing, board.rules)
        board.send(portion.ticket, units, worker, now)
