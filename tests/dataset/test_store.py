"""The store on both databases."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest
from sqlalchemy import Connection

from evalpool_dataset.evaluation import Policy, complete, start
from evalpool_dataset.outcome import Answer, Claim
from evalpool_dataset.question import Question
from evalpool_dataset.run import Run, RunState
from evalpool_dataset.store import definitions, evaluations, runs
from evalpool_runtime.database import Database
from evalpool_runtime.errors import NotFound
from tests.conftest import OpenDatabase
from tests.dataset.stored_run import (
    DIGEST,
    NOW,
    add_run,
    add_version,
    definition,
    lapse_at,
    model,
    question,
)

LEASE = timedelta(seconds=60)


@pytest.fixture
async def stored(database: OpenDatabase) -> Database:
    return await database("evalpool_dataset.migrations")


def claim(connection: Connection, limit: int = 3, holder: str = "h") -> list[Claim]:
    return evaluations.claim_some(
        connection, "run", holder=holder, now=NOW, lease=LEASE, limit=limit
    )


@pytest.mark.parametrize("choices", [2, 3, 4, 26])
async def test_questions_come_back_as_they_were_stored(stored: Database, choices: int) -> None:
    questions = [question(n, choices) for n in (1, 2)]
    questions.append(Question(3, 'A "quote"', "Wörter?\n", ("é", "漢") * (choices // 2), 1))

    def work(connection: Connection) -> list[Question]:
        definitions.add_definition(connection, definition())
        version = add_version(connection, "d", "d" * 64, questions)
        return definitions.list_questions(connection, version.id, 0, 10)

    assert await stored.write(work) == questions


async def test_the_same_version_again_becomes_the_newest_and_is_not_stored_twice(
    stored: Database,
) -> None:
    def work(connection: Connection) -> list[int]:
        definitions.add_definition(connection, definition())
        added = []
        for day, digest in enumerate(("1" * 64, "2" * 64, "1" * 64, "1" * 64)):
            added.append(add_version(connection, "d", digest, 1, NOW + timedelta(days=day)).id)
        newest = definitions.require_definition(connection, "d")
        assert newest.newest_version == added[-1]
        # The last time nothing changed.
        assert newest.update_time == NOW + timedelta(days=2)
        return added

    first, second, third, fourth = await stored.write(work)
    assert first == third == fourth != second


async def test_a_model_is_stored_once_and_listed_by_name(stored: Database) -> None:
    def work(connection: Connection) -> list[str]:
        kept = [
            definitions.keep_model(connection, model(digit * 64, name))
            for digit, name in (("a", "B"), ("b", "A"), ("c", "B"), ("a", "B"))
        ]
        assert kept[0] == kept[3]
        first = definitions.list_models(connection, ("", 0), 2)
        rest = definitions.list_models(connection, (first[-1].name, first[-1].id), 2)
        return [m.digest[0] for m in (*first, *rest)]

    assert await stored.write(work) == ["b", "a", "c"]


async def test_a_new_run_has_every_question_pending(stored: Database) -> None:
    run = await stored.write(lambda c: add_run(c, questions=7))

    found = await stored.read(lambda c: evaluations.list_results(c, run, 0, 100))

    assert run.total == 7
    assert [r.question.ordinal for r in found] == list(range(1, 8))
    assert {r.evaluation.state.value for r in found} == {"pending"}
    assert [r.question for r in found] == [question(n) for n in range(1, 8)]


async def test_a_claimed_question_is_not_claimed_again(stored: Database) -> None:
    await stored.write(lambda c: add_run(c, questions=5))

    first = await stored.write(claim)
    second = await stored.write(claim)
    third = await stored.write(claim)

    assert [c.ordinal for c in first] == [1, 2, 3]
    assert [c.ordinal for c in second] == [4, 5]
    assert third == []


async def test_claims_at_once_never_share_a_question(stored: Database) -> None:
    await stored.write(lambda c: add_run(c, questions=40))

    claimed = await asyncio.gather(*(stored.write(claim) for _ in range(16)))

    ordinals = [c.ordinal for claims in claimed for c in claims]
    assert len(ordinals) == len(set(ordinals))
    rest = await stored.write(lambda c: claim(c, 100))
    assert sorted([*ordinals, *(c.ordinal for c in rest)]) == list(range(1, 41))


async def test_a_pause_is_kept_and_its_end_is_known(stored: Database) -> None:
    await stored.write(lambda c: add_run(c, questions=1))
    late = NOW + LEASE

    def lapse(connection: Connection) -> None:
        (held,) = claim(connection)
        lapsed = evaluations.leased(connection, 10, by=late)
        assert lapsed == [(held.id, "run")]
        assert evaluations.leased(connection, 10, by=late - timedelta(seconds=1)) == []
        evaluations.take_back(connection, [held.id], lapse_at(late), "WORKER_LOST")

    await stored.write(lapse)
    over = await stored.read(evaluations.next_claim_time)

    assert over == late + Policy().pause(1)
    assert await stored.write(claim) == []
    again = await stored.write(
        lambda c: evaluations.claim_some(c, "run", holder="h", now=over, lease=LEASE, limit=1)
    )
    assert [c.fence for c in again] == [2]


async def test_pauses_of_the_oldest_runs_end_first_and_no_more_than_are_asked_for(
    stored: Database,
) -> None:
    await stored.write(lambda c: add_run(c, questions=3, run="old"))
    await stored.write(lambda c: add_run(c, questions=3, run="new", dataset="e"))
    claim_all = partial(evaluations.claim_some, holder="h", now=NOW, lease=LEASE, limit=10)

    def pause_all(connection: Connection) -> None:
        for run in ("old", "new"):
            ids = [held.id for held in claim_all(connection, run)]
            evaluations.take_back(connection, ids, lapse_at(NOW + LEASE), "WORKER_LOST")

    await stored.write(pause_all)

    async def ready(run: str) -> list[int]:
        return [held.ordinal for held in await stored.write(lambda c: claim_all(c, run))]

    assert await ready("old") == await ready("new") == []
    assert await stored.write(lambda c: evaluations.take_up(c, 4)) == 4
    assert (await ready("old"), await ready("new")) == ([1, 2, 3], [1])
    # What is under way is counted, and not begun anew.
    assert await stored.write(lambda c: evaluations.take_up(c, 10)) == 6
    assert (await ready("old"), await ready("new")) == ([], [2, 3])


async def test_only_the_named_run_or_the_owners_runs_are_taken_up(stored: Database) -> None:
    await stored.write(lambda c: add_run(c, questions=2, run="one"))
    await stored.write(lambda c: add_run(c, questions=3, run="other", dataset="e"))

    async def taken(**only: str) -> int:
        return await stored.write(lambda c: evaluations.take_up(c, 10, **only))

    assert await taken() == 5
    assert await taken(run="other") == 3
    assert await taken(owner="o" * 43) == 5
    assert await taken(owner="p" * 43) == await taken(run="other", owner="p" * 43) == 0


async def test_runs_that_have_ended_are_not_taken_up(stored: Database) -> None:
    def work(connection: Connection) -> int:
        run = add_run(connection, questions=2)
        runs.save_run(connection, replace(run, state=RunState.UNFUNDED))
        return evaluations.take_up(connection, 10)

    assert await stored.write(work) == 0


async def test_an_owner_is_told_of_changes_of_their_own_runs(stored: Database) -> None:
    await stored.write(lambda c: add_run(c, questions=1))

    async def seen(owner: str | None) -> list[str]:
        found = await stored.read(partial(runs.runs_after, cursor=0, only=(), limit=9, owner=owner))
        return [run.id for run in found]

    assert await seen(None) == await seen("o" * 43) == ["run"]
    assert await seen("p" * 43) == []


async def test_an_answer_comes_back_as_it_was_stored(stored: Database) -> None:
    answer = Answer(
        prompt="Q: é\nA:",
        sum_logprobs=(-1.25, -0.1, -1e300),
        predictions={"acc": 2, "acc_norm": 1},
        reply="B.",
        extracted={"strict-match": "B"},
        judging={"model_digest": DIGEST, "seed": 1},
        start_time=NOW,
        end_time=NOW + timedelta(milliseconds=1500),
        reference="r",
        worker="w",
        engine_build="b",
    )

    def work(connection: Connection) -> evaluations.Result:
        run = add_run(connection, questions=1)
        (held,) = claim(connection)
        evaluation = evaluations.lock(connection, [held.id])[held.id]
        begun = start(evaluation, fence=held.fence)
        evaluation = complete(begun, fence=held.fence, prediction=2, points=1)
        evaluations.save(connection, held.id, evaluation, answer=answer)
        (result,) = evaluations.list_results(connection, run, 0, 10)
        return result

    result = await stored.write(work)
    assert result.answer == answer
    assert (result.evaluation.prediction, result.evaluation.attempts) == (2, 1)


async def test_failing_what_is_open_shuts_out_what_is_under_way(stored: Database) -> None:
    def work(connection: Connection) -> tuple[Claim, int]:
        add_run(connection, questions=4)
        held = claim(connection, 1)[0]
        return held, evaluations.fail_open(connection, "run", "no file", "MODEL_FETCH_FAILED")

    held, failed = await stored.write(work)
    now = await stored.read(lambda c: evaluations.lock(c, [held.id])[held.id])

    assert failed == 4
    assert not now.is_held_by(held.fence)
    assert now.reason == "no file"
    assert await stored.write(lambda c: evaluations.reopen_failed(c, "run")) == 4
    again = await stored.write(claim)
    assert again[0].fence == held.fence + 2


async def test_readers_of_the_cursor_miss_no_change(stored: Database) -> None:
    names = [f"run-{n}" for n in range(6)]
    for name in names:
        await stored.write(partial(add_run, questions=1, run=name))
    written = 0

    async def change(name: str) -> None:
        nonlocal written

        def work(connection: Connection) -> Run:
            return runs.save_run(connection, runs.require_run(connection, name, lock=True))

        for _ in range(10):
            await stored.write(work)
        written += 1

    async def read() -> list[tuple[str, int]]:
        seen: list[tuple[str, int]] = []
        cursor = 0
        while True:
            finished = written == len(names)
            found = await stored.read(partial(runs.runs_after, cursor=cursor, only=(), limit=3))
            seen += [(run.id, run.cursor) for run in found]
            if found:
                cursor = found[-1].cursor
            elif finished:
                return seen

    reading = asyncio.create_task(read())
    await asyncio.gather(*map(change, names))
    seen = await reading

    cursors = [cursor for _, cursor in seen]
    assert cursors == sorted(set(cursors))
    # The newest standing of every run was seen.
    for name in names:
        last = await stored.read(partial(runs.require_run, run=name))
        assert (name, last.cursor) in seen


async def test_an_unknown_run_is_not_found(stored: Database) -> None:
    with pytest.raises(NotFound, match=r'^run: there is none with the id "none"; '):
        await stored.read(lambda c: runs.require_run(c, "none"))


async def test_the_choices_secret_is_random_and_stays(stored: Database) -> None:
    first = await stored.read(lambda c: definitions.read_secret(c, "choice-order"))
    assert len(first) == 32
    assert first == await stored.read(lambda c: definitions.read_secret(c, "choice-order"))
