"""One effect for each bearer token, on both databases."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from sqlalchemy import Column, Connection, Integer, MetaData, Table, func, insert, select

from evalpool.token.v1 import token_pb2
from evalpool_runtime.authentication import SKEW
from evalpool_runtime.call import calling
from evalpool_runtime.database import Database
from evalpool_runtime.errors import AlreadyExists, NotFound, reasons
from evalpool_runtime.replay import forget_expired, once, seen_tokens_table

metadata = MetaData()
effects = Table("effects", metadata, Column("id", Integer, primary_key=True))
seen = seen_tokens_table(metadata)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = Database.open(database_url)
    await opened.write(metadata.create_all)
    yield opened
    await opened.close()


def effect(connection: Connection) -> token_pb2.GetBalanceResponse:
    connection.execute(insert(effects))
    count = connection.scalar(select(func.count()).select_from(effects))
    return token_pb2.GetBalanceResponse(balance=str(count))


async def carry_out(database: Database) -> str:
    return (await once(database, token_pb2.GetBalanceResponse, effect)).balance


async def count(database: Database, table: Table) -> int:
    number = await database.read(lambda c: c.scalar(select(func.count()).select_from(table)))
    assert number is not None
    return number


async def test_a_retry_gets_the_first_answer_and_has_no_effect(database: Database) -> None:
    with calling("somebody"):
        assert [await carry_out(database) for _ in range(3)] == ["1", "1", "1"]

    assert await count(database, effects) == 1
    with calling("somebody"):
        assert await carry_out(database) == "2"


async def test_the_same_token_with_other_content_is_refused(database: Database) -> None:
    with calling("somebody") as call:
        call.request = token_pb2.GetBalanceRequest(account="a")
        await carry_out(database)
        call.request = token_pb2.GetBalanceRequest(account="b")
        with pytest.raises(AlreadyExists) as caught:
            await carry_out(database)

    assert caught.value.reason == reasons.ERROR_REASON_TOKEN_REPLAYED
    assert await count(database, effects) == 1


async def test_the_same_token_at_another_method_is_refused(database: Database) -> None:
    with calling("somebody", method="/a/A") as call:
        await carry_out(database)
        call.method = "/a/B"
        with pytest.raises(AlreadyExists):
            await carry_out(database)


async def test_two_callers_may_choose_the_same_jti(database: Database) -> None:
    for address in ("one", "two"):
        with calling(address) as call:
            call.jti = "the same"
            await carry_out(database)

    assert await count(database, effects) == 2


async def test_a_refusal_stores_nothing_so_that_the_call_may_be_made_again(
    database: Database,
) -> None:
    def refuse(connection: Connection) -> token_pb2.GetBalanceResponse:
        connection.execute(insert(effects))
        raise NotFound(reasons.ERROR_REASON_INVALID_FIELD, "no")

    with calling("somebody"):
        with pytest.raises(NotFound):
            await once(database, token_pb2.GetBalanceResponse, refuse)
        assert await count(database, effects) == 0
        assert await count(database, seen) == 0
        assert await carry_out(database) == "1"


async def test_an_empty_answer_is_an_answer(database: Database) -> None:
    def work(connection: Connection) -> token_pb2.GetBalanceResponse:
        effect(connection)
        return token_pb2.GetBalanceResponse()

    with calling("somebody"):
        for _ in range(2):
            answer = await once(database, token_pb2.GetBalanceResponse, work)
            assert answer == token_pb2.GetBalanceResponse()
    assert await count(database, effects) == 1


async def test_two_calls_at_once_with_one_token_have_one_effect(database: Database) -> None:
    """The second begins while the first is at work, and gets its answer."""
    second_may_begin = threading.Event()
    second_has_begun = threading.Event()
    runs = []

    def work(connection: Connection) -> token_pb2.GetBalanceResponse:
        runs.append(1)
        second_may_begin.set()
        second_has_begun.wait()
        return effect(connection)

    async def second() -> str:
        await asyncio.to_thread(second_may_begin.wait)
        call = asyncio.create_task(carry_out(database))
        await asyncio.sleep(0)
        second_has_begun.set()
        return await call

    with calling("somebody"):
        first, answer = await asyncio.gather(
            once(database, token_pb2.GetBalanceResponse, work), second()
        )

    assert (first.balance, answer) == ("1", "1")
    assert await count(database, effects) == 1
    assert len(runs) == 1


async def test_many_calls_at_once_with_one_token_have_one_effect(database: Database) -> None:
    with calling("somebody"):
        answers = await asyncio.gather(*(carry_out(database) for _ in range(20)))

    assert set(answers) == {"1"}
    assert await count(database, effects) == 1


async def test_many_calls_at_once_with_one_token_and_two_contents_have_one_effect(
    database: Database,
) -> None:
    async def make(account: str) -> str:
        with calling("somebody") as call:
            call.jti = "the same"
            call.request = token_pb2.GetBalanceRequest(account=account)
            return await carry_out(database)

    results = await asyncio.gather(*(make("ab"[n % 2]) for n in range(20)), return_exceptions=True)

    assert results.count("1") == 10
    assert sum(isinstance(result, AlreadyExists) for result in results) == 10
    assert await count(database, effects) == 1


async def test_when_the_first_of_two_calls_at_once_is_refused_the_second_has_its_turn(
    database: Database,
) -> None:
    begun = threading.Event()
    go_on = threading.Event()

    def refuse(connection: Connection) -> token_pb2.GetBalanceResponse:
        begun.set()
        go_on.wait()
        raise NotFound(reasons.ERROR_REASON_INVALID_FIELD, "no")

    with calling("somebody"):
        first = asyncio.create_task(once(database, token_pb2.GetBalanceResponse, refuse))
        await asyncio.to_thread(begun.wait)
        second = asyncio.create_task(carry_out(database))
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(NotFound):
            await first
        assert await second == "1"


async def test_a_token_is_forgotten_only_when_it_could_not_be_accepted_any_more(
    database: Database,
) -> None:
    with calling("somebody") as call:
        await carry_out(database)
        last_accepted = call.expires + SKEW
        assert await database.write(lambda c: forget_expired(c, last_accepted)) == 0
        assert await carry_out(database) == "1"
        late = last_accepted + SKEW + timedelta(microseconds=1)
        assert await database.write(lambda c: forget_expired(c, late)) == 1
    assert await count(database, seen) == 0
