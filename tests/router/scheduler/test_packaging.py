from __future__ import annotations

from evalpool_router.scheduler import Kind, Rules
from tests.router.scheduler.herd_model import HerdModel


def test_questions_are_split_late_into_packages() -> None:
    herd = HerdModel()
    herd.join("a", slots=4)
    herd.score(1000)
    assert [len(d.questions) for d in herd.dispatched] == [64, 64]
    assert herd.dispatched[0].questions == tuple(range(64))


def test_a_run_is_shared_by_all_workers_in_packages_that_get_smaller() -> None:
    herd = HerdModel()
    for number in range(4):
        herd.join(f"w{number}")
    request = herd.score(300)
    herd.run_to_the_end()
    sizes = [len(d.questions) for d in herd.dispatched]
    assert {d.worker for d in herd.dispatched} == {"w0", "w1", "w2", "w3"}
    assert sizes[0] == 38
    assert sizes[:-1] == sorted(sizes[:-1], reverse=True)
    # No small rest at the end: the last package has it too.
    assert 16 <= sizes[-1] < 32
    assert sorted(herd.done[request]) == list(range(300))
    assert herd.ended == {request: None}


def test_long_prompts_go_out_in_smaller_packages() -> None:
    herd = HerdModel(Rules(package_tokens=1000))
    herd.join("a")
    herd.score(100, tokens=300)
    assert len(herd.dispatched[0].questions) == 3

    herd = HerdModel(Rules(package_tokens=1000))
    herd.join("a")
    herd.score(3, tokens=5000)
    assert len(herd.dispatched[0].questions) == 1


def test_only_workers_that_can_take_a_run_share_it() -> None:
    herd = HerdModel()
    for number in range(4):
        herd.join(f"small {number}", memory=100)
    herd.join("judge", kinds=frozenset({Kind.JUDGE}))
    herd.join("large", memory=200)
    herd.score(60, size=150)
    assert len(herd.dispatched[0].questions) == 30
