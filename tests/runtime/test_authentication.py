"""Verification of bearer tokens."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalpool.identity import Identity
from evalpool_runtime import authentication
from evalpool_runtime.authentication import Authenticator
from evalpool_runtime.clock import ManualClock
from evalpool_runtime.errors import Unauthenticated
from tests.runtime import edwards
from tests.runtime.hostile_tokens import (
    FOR_ANOTHER,
    HOSTILE,
    NOT_NOW,
    NOW,
    Token,
    claims,
    header,
    point,
)

AUDIENCE = Identity.generate().address


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime.fromtimestamp(NOW, UTC))


@pytest.fixture
def authenticator(clock: ManualClock) -> Authenticator:
    return Authenticator(AUDIENCE, clock)


def refusal(authenticator: Authenticator, token: str) -> str:
    with pytest.raises(Unauthenticated, match=r"^authorization: .+; ") as caught:
        authenticator.verify(token)
    return caught.value.reason_name


def test_a_good_token_proves_its_signers_address(authenticator: Authenticator) -> None:
    person = Identity.generate()

    verified = authenticator.verify(person.token(AUDIENCE, now=lambda: NOW, jti="abcdefgh"))

    assert verified.address == person.address
    assert verified.jti == "abcdefgh"
    assert verified.expires == datetime.fromtimestamp(NOW + 120, UTC)


def test_a_token_made_by_hand_is_good_so_that_the_hostile_ones_differ_in_one_thing(
    authenticator: Authenticator,
) -> None:
    token = Token(AUDIENCE)
    assert authenticator.verify(token.compact()).jti == token.payload["jti"]
    assert authenticator.verify(header(Token(AUDIENCE), typ="JWT")).jti == token.payload["jti"]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_tokens_are_invalid(authenticator: Authenticator, name: str) -> None:
    assert refusal(authenticator, HOSTILE[name](Token(AUDIENCE))) == "TOKEN_INVALID"


@pytest.mark.parametrize("name", [name for name in HOSTILE if name.startswith("alg ")])
def test_another_algorithm_is_refused_before_anything_is_verified(
    authenticator: Authenticator, name: str
) -> None:
    with pytest.raises(Unauthenticated, match=r"its alg must be|names a member twice"):
        authenticator.verify(HOSTILE[name](Token(AUDIENCE)))


@pytest.mark.parametrize("name", FOR_ANOTHER)
def test_tokens_for_others_are_refused(authenticator: Authenticator, name: str) -> None:
    token = FOR_ANOTHER[name](Token(AUDIENCE))
    assert refusal(authenticator, token) == "TOKEN_FOR_ANOTHER_SERVER"


@pytest.mark.parametrize("name", NOT_NOW)
def test_tokens_of_other_times_are_refused(authenticator: Authenticator, name: str) -> None:
    assert refusal(authenticator, NOT_NOW[name](Token(AUDIENCE))) == "TOKEN_EXPIRED"


@pytest.mark.parametrize(
    ("issued", "expires"),
    [(NOW + 30, NOW + 60), (NOW - 100, NOW - 30), (NOW, NOW + 300), (NOW - 1, NOW)],
)
def test_clocks_may_differ_by_thirty_seconds(
    authenticator: Authenticator, issued: int, expires: int
) -> None:
    authenticator.verify(claims(Token(AUDIENCE), iat=issued, exp=expires))


def test_a_remembered_token_still_expires(authenticator: Authenticator, clock: ManualClock) -> None:
    token = Token(AUDIENCE).compact()
    first = authenticator.verify(token)
    clock.advance(timedelta(seconds=150))
    assert authenticator.verify(token) is first

    clock.advance(timedelta(seconds=1))

    assert refusal(authenticator, token) == "TOKEN_EXPIRED"


def test_no_more_tokens_are_remembered_than_the_bound(
    authenticator: Authenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authentication, "REMEMBERED_TOKENS", 2)
    tokens = [Token(AUDIENCE).compact() for _ in range(3)]
    first = [authenticator.verify(token) for token in tokens]

    assert authenticator.verify(tokens[2]) is first[2]
    assert authenticator.verify(tokens[0]) is not first[0]


def test_a_refused_token_is_not_remembered(authenticator: Authenticator) -> None:
    token = HOSTILE["signed by another key"](Token(AUDIENCE))
    for _ in range(2):
        assert refusal(authenticator, token) == "TOKEN_INVALID"


def test_the_points_of_small_order_are_these_eight() -> None:
    """By the curve's arithmetic: eight times the point is the identity, for these and no others."""
    points = edwards.small_order_points()

    assert len(points) == 8
    assert all(edwards.times(8, each) == edwards.IDENTITY for each in points)
    assert {y for _, y in points} == authentication._SMALL_ORDER_Y


@pytest.mark.parametrize("y", sorted(authentication._SMALL_ORDER_Y))
@pytest.mark.parametrize("sign", [0, 1])
def test_keys_of_small_order_are_refused(authenticator: Authenticator, y: int, sign: int) -> None:
    with pytest.raises(Unauthenticated, match="small order"):
        authenticator.verify(point(Token(AUDIENCE), y, sign))


@given(st.text(max_size=1200))
def test_no_text_is_anything_but_refused(token: str) -> None:
    authenticator = Authenticator(AUDIENCE, ManualClock())
    assert refusal(authenticator, token) == "TOKEN_INVALID"


@given(st.data())
def test_no_changed_character_of_a_token_is_accepted_as_another_signer(data: st.DataObject) -> None:
    token = Token(AUDIENCE)
    good = token.compact()
    authenticator = Authenticator(AUDIENCE, ManualClock(datetime.fromtimestamp(NOW, UTC)))
    address = authenticator.verify(good).address
    place = data.draw(st.integers(0, len(good) - 1))
    other = data.draw(st.sampled_from("ABCabc019-_.=%"))
    changed = good[:place] + other + good[place + 1 :]
    try:
        verified = authenticator.verify(changed)
    except Unauthenticated:
        return
    # Only stray bits of the signature's last character leave everything as it was.
    assert changed[:-1] == good[:-1]
    assert (verified.address, verified.jti) == (address, token.payload["jti"])
