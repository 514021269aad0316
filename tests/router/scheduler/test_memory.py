from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from evalpool_router.scheduler.memory import NOBODY, Memories, grade

sizes = st.integers(1, 2**50)


@given(st.lists(sizes), sizes)
def test_those_that_hold_a_model_are_counted_and_the_least_of_them_is_found(
    given_: list[int], size: int
) -> None:
    memories = Memories()
    for memory in given_:
        memories.add(memory)
    holding = [memory for memory in given_ if memory >= size]
    assert memories.holding(size) == len(holding)
    assert memories.least_holding(size) == min(holding, default=NOBODY)
    assert memories.largest() == max(given_, default=0)


@given(st.lists(sizes, min_size=1), st.data())
def test_a_worker_that_goes_no_longer_counts(given_: list[int], data: st.DataObject) -> None:
    memories = Memories()
    for memory in given_:
        memories.add(memory)
    gone = data.draw(st.sampled_from(given_))
    memories.remove(gone)
    given_.remove(gone)
    assert memories.holding(1) == len(given_)
    assert memories.largest() == max(given_, default=0)


def test_a_size_that_is_not_known_is_held_by_any() -> None:
    assert Memories().least_holding(0) == 0


@given(sizes, sizes)
def test_grades_grow_with_memory_and_are_alike_within_an_eighth(one: int, other: int) -> None:
    small, large = sorted((one, other))
    assert grade(small) <= grade(large)
    if large > small * 9 / 8:
        assert grade(small) < grade(large)
