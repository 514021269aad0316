"""What requests may hold, and what makes two of them the same."""

from __future__ import annotations

from datetime import timedelta

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from evalpool.common.v1.service_info_pb2 import Tag
from evalpool.identity import Identity
from evalpool.token.v1 import token_pb2
from evalpool.values import InvalidFields
from evalpool_token import requests
from evalpool_token.requests import (
    MAX_BATCH_VIOLATIONS,
    parse_batch,
    parse_burn,
    parse_hold,
    parse_mint,
    parse_transfer,
)

ALICE = Identity.generate().address
BOB = Identity.generate().address
WEEK = timedelta(days=7)


def transfer(**fields: object) -> token_pb2.TransferRequest:
    values: dict[str, object] = {"recipient": BOB, "quantity": "1", "request_id": "r", **fields}
    return token_pb2.TransferRequest(**values)  # type: ignore[arg-type]


def violated(parse: object, *arguments: object) -> dict[str, str]:
    with pytest.raises(InvalidFields) as refused:
        parse(*arguments)  # type: ignore[operator]
    return {v.field: v.description for v in refused.value.violations}


@pytest.mark.parametrize(
    "quantity", ["1.5", "-3", "1e3", "0", "", "9" * 40, " 1", "1 ", "1 0", "01", "+1", "0x1", "１"]
)
def test_each_request_names_a_quantity_that_is_none(quantity: str) -> None:
    hold = token_pb2.HoldRequest(
        recipient=BOB, quantity=quantity, request_id="r", time_to_live=Duration(seconds=1)
    )
    mint = token_pb2.MintRequest(recipient=BOB, quantity=quantity, request_id="r")
    burn = token_pb2.BurnRequest(quantity=quantity, request_id="r")

    assert set(violated(parse_transfer, transfer(quantity=quantity), ALICE)) == {"quantity"}
    assert set(violated(parse_hold, hold, ALICE, WEEK)) == {"quantity"}
    assert set(violated(parse_mint, mint)) == {"quantity"}
    assert set(violated(parse_burn, burn)) == {"quantity"}


@pytest.mark.parametrize("recipient", ["", "bob", BOB[:-1], BOB + "A", BOB[:-1] + "=", "é" * 43])
def test_a_recipient_that_is_no_address_is_named(recipient: str) -> None:
    assert set(violated(parse_transfer, transfer(recipient=recipient), ALICE)) == {"recipient"}


def test_nobody_sends_to_oneself() -> None:
    assert "own address" in violated(parse_transfer, transfer(), BOB)["recipient"]


@pytest.mark.parametrize(
    "tags",
    [
        [Tag(name=f"X-{n}", value="") for n in range(33)],
        [Tag(name="X-A", value="v" * 1025)],
        [Tag(name="X-A", value="é" * 513)],
        [Tag(name="X" * 65, value="")],
        [Tag(name="", value="")],
        [Tag(name="X A", value="")],
        [Tag(name="X-A", value="1"), Tag(name="x-a", value="2")],
        [Tag(name="X-A", value="line\nline")],
    ],
)
def test_tags_beyond_their_limits_are_named(tags: list[Tag]) -> None:
    assert set(violated(parse_transfer, transfer(tags=tags), ALICE)) == {"tags"}


def test_tags_at_their_limits_are_taken_in_the_order_sent() -> None:
    tags = [Tag(name=f"X-{n}", value="é" * 512) for n in reversed(range(32))]

    order = parse_transfer(transfer(tags=tags), ALICE)

    assert [t.name for t in order.payments[0].tags] == [t.name for t in tags]


@pytest.mark.parametrize("request_id", ["", "a b", "r" * 129, "é", "a/b", "a\n"])
def test_a_request_id_beyond_its_rule_is_named(request_id: str) -> None:
    assert set(violated(parse_transfer, transfer(request_id=request_id), ALICE)) == {"request_id"}


def batch(*transfers: token_pb2.BatchTransfer, request_id: str = "r") -> object:
    return token_pb2.TransferBatchRequest(transfers=transfers, request_id=request_id)


def test_a_batch_names_every_violation_with_its_place() -> None:
    good = token_pb2.BatchTransfer(recipient=BOB, quantity="1")
    bad = token_pb2.BatchTransfer(recipient=ALICE, quantity="1.5", tags=[Tag(name="1")])

    found = violated(parse_batch, batch(good, bad, good, bad, request_id=""), ALICE, 10)

    assert set(found) == {
        "request_id",
        *(f"transfers[{n}].{f}" for n in (1, 3) for f in ("recipient", "quantity", "tags")),
    }


@pytest.mark.parametrize("count", [0, 11])
def test_a_batch_of_none_or_too_many_is_refused(count: int) -> None:
    good = token_pb2.BatchTransfer(recipient=BOB, quantity="1")

    assert set(violated(parse_batch, batch(*[good] * count), ALICE, 10)) == {"transfers"}


def test_a_batch_with_thousands_of_violations_tells_some() -> None:
    bad = token_pb2.BatchTransfer(recipient="x", quantity="y")

    found = violated(parse_batch, batch(*[bad] * 10_000), ALICE, 10_000)

    assert MAX_BATCH_VIOLATIONS < len(found) <= MAX_BATCH_VIOLATIONS + 3
    assert "transfers up to 9" in found["transfers"]


def test_a_batch_whose_answer_would_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "MAX_BATCH_BYTES", 100)
    good = token_pb2.BatchTransfer(recipient=BOB, quantity="1")

    assert (
        "several batches" in violated(parse_batch, batch(good, good, good), ALICE, 10)["transfers"]
    )


@pytest.mark.parametrize(
    "time_to_live",
    [
        Duration(),
        Duration(nanos=999_999_999),
        Duration(seconds=-1),
        Duration(seconds=604_800, nanos=1),
        Duration(seconds=315_576_000_000),
        Duration(seconds=10**18),
        Duration(seconds=2, nanos=-1),
        Duration(seconds=1, nanos=2_000_000_000),
    ],
)
def test_a_hold_that_is_too_short_too_long_or_no_duration_is_refused(
    time_to_live: Duration,
) -> None:
    request = token_pb2.HoldRequest(
        recipient=BOB, quantity="1", request_id="r", time_to_live=time_to_live
    )

    assert set(violated(parse_hold, request, ALICE, WEEK)) == {"time_to_live"}


@pytest.mark.parametrize("seconds", [1, 604_800])
def test_a_hold_may_last_from_a_second_to_the_limit(seconds: int) -> None:
    request = token_pb2.HoldRequest(
        recipient=BOB, quantity="1", request_id="r", time_to_live=Duration(seconds=seconds)
    )

    assert parse_hold(request, ALICE, WEEK).time_to_live == timedelta(seconds=seconds)


contents = st.builds(
    lambda quantity, pairs: (quantity, tuple(pairs)),
    st.integers(1, 10**39 - 1),
    st.lists(
        st.tuples(st.sampled_from(["X-A", "X-B", "X-C"]), st.text("ab, ", max_size=3)),
        max_size=3,
        unique_by=lambda pair: pair[0],
    ),
)


@given(contents, contents)
def test_two_transfers_are_the_same_when_their_content_is(
    one: tuple[int, tuple[tuple[str, str], ...]], other: tuple[int, tuple[tuple[str, str], ...]]
) -> None:
    prints = [
        parse_transfer(
            transfer(quantity=str(quantity), tags=[Tag(name=n, value=v) for n, v in pairs]), ALICE
        ).fingerprint
        for quantity, pairs in (one, other)
    ]

    assert (prints[0] == prints[1]) == (one == other)


def test_a_transfer_a_batch_of_one_a_mint_and_a_hold_are_not_the_same() -> None:
    one = token_pb2.BatchTransfer(recipient=BOB, quantity="1")
    hold = token_pb2.HoldRequest(
        recipient=BOB, quantity="1", request_id="r", time_to_live=Duration(seconds=1)
    )
    longer = token_pb2.HoldRequest(
        recipient=BOB, quantity="1", request_id="r", time_to_live=Duration(seconds=2)
    )
    prints = {
        parse_transfer(transfer(), ALICE).fingerprint,
        parse_batch(
            token_pb2.TransferBatchRequest(transfers=[one], request_id="r"), ALICE, 1
        ).fingerprint,
        parse_mint(token_pb2.MintRequest(recipient=BOB, quantity="1", request_id="r")).fingerprint,
        parse_burn(token_pb2.BurnRequest(quantity="1", request_id="r")).fingerprint,
        parse_hold(hold, ALICE, WEEK).fingerprint,
        parse_hold(longer, ALICE, WEEK).fingerprint,
    }

    assert len(prints) == 6
