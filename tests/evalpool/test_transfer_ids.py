"""Ids of transfers."""

from __future__ import annotations

from evalpool.transfer_ids import transfer_id
from evalpool.values import parse_transfer_id

# Pools are named by these for ever: the derivation must never change. Computed by
#   printf 'evalpool-transfer\0ledger\0sender\0request\0000\0' | sha256sum
GOLDEN = "Zomfd4Uv1Vnpi9tcDq6KpMgMzGyP-oeR6Z8c95OJjRM"


def test_an_id_is_known_before_the_transfer_is_sent() -> None:
    assert transfer_id("ledger", "sender", "request") == GOLDEN
    assert parse_transfer_id(GOLDEN) == GOLDEN


def test_every_part_counts() -> None:
    ids = {
        transfer_id("l", "s", "r"),
        transfer_id("m", "s", "r"),
        transfer_id("l", "t", "r"),
        transfer_id("l", "s", "q"),
        transfer_id("l", "s", "r", 1),
        transfer_id("ls", "", "r"),
        transfer_id("l", "sr", ""),
    }
    assert len(ids) == 7


def test_no_id_begins_with_a_hyphen_which_a_shell_command_takes_for_an_option() -> None:
    ids = [transfer_id("ledger", "sender", str(number)) for number in range(1000)]

    assert not any(made.startswith("-") for made in ids)
    assert len(set(ids)) == 1000
