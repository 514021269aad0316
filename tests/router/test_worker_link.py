from __future__ import annotations

from evalpool.identity import Identity
from evalpool_router.worker_link import WorkerLink
from tests.router.worker_double import WorkerDouble


def link_to(worker: WorkerDouble) -> WorkerLink:
    return WorkerLink(worker.endpoint, worker.address, 1, "double 1", Identity.generate())


async def test_a_worker_is_reached_through_a_new_link_while_the_old_one_waits_to_try_again() -> (
    None
):
    async with WorkerDouble.new() as dead:
        old = link_to(dead)
        assert await old.reachable()
        await dead.kill()
        while await old.reachable():
            # The connection's end is not told at once.
            pass
        async with WorkerDouble.new(dead.identity, dead.endpoint) as back:
            assert not await old.reachable()
            new = link_to(back)
            assert await new.reachable()
            await old.close()
            await new.close()
