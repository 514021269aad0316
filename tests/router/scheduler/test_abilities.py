from __future__ import annotations

from evalpool_router.scheduler import Kind
from evalpool_router.scheduler.abilities import NOTHING, Abilities, Ability
from tests.router.scheduler.herd_model import MODEL, OTHER_MODEL

CHAT, JUDGE = Kind.CHAT, Kind.JUDGE


def test_workers_are_counted_by_what_they_hold_and_by_what_they_are_dedicated_to() -> None:
    abilities = Abilities()
    abilities.note("small", Ability(frozenset({CHAT}), 100))
    abilities.note("large", Ability(frozenset({CHAT, JUDGE}), 300))
    abilities.note("server", Ability(frozenset({CHAT}), 1, frozenset({MODEL})))
    assert [abilities.count(CHAT, MODEL, size) for size in (50, 200, 301)] == [3, 2, 1]
    assert [abilities.count(CHAT, OTHER_MODEL, size) for size in (50, 200, 301)] == [2, 1, 0]
    assert abilities.count(JUDGE, MODEL, 50) == 1
    assert abilities.largest_memory(CHAT) == 300


def test_what_a_worker_takes_no_longer_does_not_count() -> None:
    abilities = Abilities()
    abilities.note("a", Ability(frozenset({CHAT, JUDGE}), 9, frozenset({MODEL})))
    abilities.note("a", Ability(frozenset({CHAT}), 9))
    assert [abilities.any_takes(kind) for kind in (CHAT, JUDGE)] == [True, False]
    assert [abilities.count(CHAT, MODEL, size) for size in (9, 10)] == [1, 0]
    abilities.note("a", NOTHING)
    assert not abilities.any_takes(CHAT)
    assert abilities.count(CHAT, MODEL, 9) == abilities.largest_memory(CHAT) == 0


def test_the_revision_grows_with_every_change_and_with_nothing_else() -> None:
    abilities = Abilities()
    abilities.note("a", NOTHING)
    assert abilities.revision == 0
    ability = Ability(frozenset({CHAT}), 9)
    for number, noted in enumerate(
        (ability, ability._replace(only_models=frozenset({MODEL})), NOTHING), start=1
    ):
        for _ in range(2):
            abilities.note("a", noted)
            assert abilities.revision == number
