"""Wallets and the address book."""

from __future__ import annotations

from pathlib import Path

import pytest

from evalpool.identity import Identity, InvalidKeyFile
from evalpool.wallet import AddressBook, AddressMismatch, WalletError, Wallets, home

ONE, TWO = Identity.generate().address, Identity.generate().address
ENDPOINT = "127.0.0.1:50051"


def test_the_default_wallet_is_made_on_first_use_and_kept(tmp_path: Path) -> None:
    wallets = Wallets(tmp_path)
    assert wallets.names() == []
    address = wallets.get().address
    assert Wallets(tmp_path).get().address == address
    assert wallets.names() == ["default"]


def test_other_wallets_are_made_on_purpose(tmp_path: Path) -> None:
    wallets = Wallets(tmp_path)
    with pytest.raises(WalletError, match="evalpool wallet new alice"):
        wallets.get("alice")
    made = wallets.new("alice")
    assert wallets.get("alice").address == made.address


def test_a_wallet_is_never_replaced(tmp_path: Path) -> None:
    wallets = Wallets(tmp_path)
    made = wallets.new("alice")
    with pytest.raises(WalletError, match="already"):
        wallets.new("alice")
    assert wallets.get("alice").address == made.address


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a b", "a" * 65, "ä", "a\n"])
def test_names_that_could_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    for use in (Wallets(tmp_path).new, Wallets(tmp_path).get):
        with pytest.raises(WalletError, match="no wallet name"):
            use(name)
    assert list(tmp_path.iterdir()) == []


def key_file(path: Path) -> Path:
    Identity.generate().save(path)
    return path


def test_a_linked_key_is_a_wallet(tmp_path: Path) -> None:
    wallets = Wallets(tmp_path / "home")
    key = key_file(tmp_path / "operator.json")
    for _ in range(2):
        wallets.add("operator", key)
        assert wallets.get("operator").address == Identity.load(key).address
    assert wallets.names() == ["operator"]


def test_a_link_to_another_deployments_key_gives_way(tmp_path: Path) -> None:
    wallets = Wallets(tmp_path / "home")
    wallets.add("operator", key_file(tmp_path / "one.json"))
    second = key_file(tmp_path / "two.json")
    wallets.add("operator", second)
    assert wallets.get("operator").address == Identity.load(second).address


def test_a_link_whose_key_is_gone_gives_way(tmp_path: Path) -> None:
    wallets = Wallets(tmp_path / "home")
    first = key_file(tmp_path / "one.json")
    wallets.add("operator", first)
    first.unlink()
    second = key_file(tmp_path / "two.json")
    wallets.add("operator", second)
    assert wallets.get("operator").address == Identity.load(second).address


def test_a_key_of_the_users_own_does_not_give_way(tmp_path: Path) -> None:
    wallets = Wallets(tmp_path / "home")
    own = wallets.new("operator").address
    wallets.add("operator", key_file(tmp_path / "one.json"))
    assert wallets.get("operator").address == own


def test_what_is_no_key_is_not_linked(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(InvalidKeyFile):
        Wallets(tmp_path / "home").add("operator", tmp_path / "x.json")
    assert Wallets(tmp_path / "home").names() == []


def test_a_server_is_trusted_on_first_use(tmp_path: Path) -> None:
    book = AddressBook(tmp_path / "home")
    assert book.get(ENDPOINT) is None
    book.learn(ENDPOINT, ONE)
    book.learn(ENDPOINT, ONE)
    assert AddressBook(tmp_path / "home").get(ENDPOINT) == ONE


def test_another_address_than_before_is_refused_with_the_remedy(tmp_path: Path) -> None:
    book = AddressBook(tmp_path)
    book.learn(ENDPOINT, ONE)
    with pytest.raises(AddressMismatch, match=f"evalpool wallet forget {ENDPOINT}"):
        book.learn(ENDPOINT, TWO)
    assert book.get(ENDPOINT) == ONE


def test_a_forgotten_server_is_trusted_anew(tmp_path: Path) -> None:
    book = AddressBook(tmp_path)
    book.learn(ENDPOINT, ONE)
    book.learn("127.0.0.1:1", TWO)
    assert book.forget(ENDPOINT)
    assert not book.forget(ENDPOINT)
    book.learn(ENDPOINT, TWO)
    assert book.get(ENDPOINT) == TWO
    assert book.get("127.0.0.1:1") == TWO


def test_addresses_known_for_sure_replace_older_ones(tmp_path: Path) -> None:
    book = AddressBook(tmp_path)
    book.learn(ENDPOINT, ONE)
    book.replace({ENDPOINT: TWO})
    assert book.get(ENDPOINT) == TWO


@pytest.mark.parametrize("text", ["", "[]", "[1", "null", '"x"'])
def test_a_spoilt_address_book_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "addresses.json").write_text(text)
    with pytest.raises(WalletError, match=r"addresses\.json .*mend or remove it"):
        AddressBook(tmp_path).get(ENDPOINT)


def test_the_environment_says_where_wallets_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVALPOOL_HOME", "somewhere")
    assert home() == Path("somewhere")
    assert Wallets().directory == Path("somewhere")
