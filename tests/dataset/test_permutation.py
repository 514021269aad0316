from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalpool_dataset.permutation import Permutation, permutation

seeds = st.binary(min_size=16, max_size=32)


@given(seeds, st.text(max_size=8), st.integers(1, 26))
def test_what_is_shown_can_be_put_back(seed: bytes, question: str, choices: int) -> None:
    order = permutation(seed, question, choices)
    items = list(range(choices))
    assert sorted(order.shown(items)) == items
    assert list(order.restored(order.shown(items))) == items
    assert list(order.shown(order.restored(items))) == items


@given(seeds, st.text(max_size=8), st.integers(1, 26), st.data())
def test_a_place_shown_leads_to_the_same_choice(
    seed: bytes, question: str, choices: int, data: st.DataObject
) -> None:
    order = permutation(seed, question, choices)
    place = data.draw(st.integers(1, choices))
    names = [f"choice {n}" for n in range(1, choices + 1)]
    assert names[order.original(place) - 1] == order.shown(names)[place - 1]


def test_no_choice_stays_no_choice() -> None:
    assert permutation(b"s" * 16, "1", 3).original(0) == 0


def test_the_order_is_the_same_each_time_and_on_every_machine() -> None:
    orders = [permutation(bytes(range(16)), str(n), 4).order for n in range(1, 4)]
    assert orders == [(0, 3, 1, 2), (2, 1, 0, 3), (1, 2, 3, 0)]
    # With 26 choices the first byte drawn here is drawn again, or small places would be favoured.
    assert permutation(bytes(range(16)), "5", 26).order == (
        19,
        12,
        15,
        1,
        18,
        25,
        21,
        13,
        0,
        10,
        11,
        4,
        7,
        6,
        17,
        14,
        22,
        9,
        2,
        5,
        24,
        23,
        20,
        3,
        8,
        16,
    )


def test_every_order_comes_about_equally_often() -> None:
    counts = Counter(permutation(b"a secret of ours", str(n), 3).order for n in range(6000))
    assert len(counts) == 6
    # Five standard deviations around 1000; the seed is fixed, so this cannot flicker.
    assert all(abs(count - 1000) < 145 for count in counts.values())


def test_another_seed_gives_other_orders() -> None:
    one, other = (
        [permutation(seed, str(n), 5).order for n in range(50)] for seed in (b"1" * 16, b"2" * 16)
    )
    assert one != other


def test_a_seed_that_can_be_guessed_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 16"):
        permutation(b"short", "1", 3)


def test_items_of_another_number_are_refused() -> None:
    with pytest.raises(ValueError, match="2 items for 3 places"):
        Permutation((2, 0, 1)).shown(["a", "b"])
    with pytest.raises(ValueError, match="2 items for 3 places"):
        Permutation((2, 0, 1)).restored(["a", "b"])
    with pytest.raises(ValueError, match="not among"):
        Permutation((2, 0, 1)).original(4)


def test_what_is_no_permutation_is_refused() -> None:
    with pytest.raises(ValueError, match="no permutation"):
        Permutation((0, 0, 1))
