"""Keys, addresses, tokens."""

from __future__ import annotations

import base64
import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from evalpool.identity import Identity, InvalidKeyFile

# RFC 8037, appendix A.
RFC_KEY = {
    "kty": "OKP",
    "crv": "Ed25519",
    "d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
    "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
}
RFC_THUMBPRINT = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def part(token: str, number: int) -> dict[str, object]:
    text = token.split(".")[number]
    value = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    assert isinstance(value, dict)
    return value


def test_the_address_is_the_thumbprint_of_the_rfc(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    path.write_text(json.dumps(RFC_KEY))
    identity = Identity.load(path)
    assert identity.address == RFC_THUMBPRINT
    assert identity.public_jwk == {k: RFC_KEY[k] for k in ("kty", "crv", "x")}


def test_a_saved_key_comes_back(tmp_path: Path) -> None:
    identity = Identity.generate()
    identity.save(tmp_path / "deep" / "key.json")
    loaded = Identity.load(tmp_path / "deep" / "key.json")
    assert loaded.address == identity.address
    assert loaded.derive("x") == identity.derive("x")


def test_only_its_owner_can_read_a_key(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "key.json"
    Identity.generate().save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [each.name for each in path.parent.iterdir()] == ["key.json"]


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    first = Identity.generate()
    first.save(path)
    with pytest.raises(FileExistsError):
        Identity.generate().save(path)
    assert Identity.load(path).address == first.address
    assert [each.name for each in tmp_path.iterdir()] == ["key.json"]


def test_processes_that_begin_at_once_agree_on_one_key(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    script = (
        "import sys\nfrom pathlib import Path\nfrom evalpool.identity import Identity\n"
        "print('ready', flush=True)\nsys.stdin.readline()\n"
        "print(Identity.load_or_create(Path(sys.argv[1])).address)\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    addresses = {process.communicate("go\n")[0] for process in processes}
    assert addresses == {f"{Identity.load(path).address}\n"}


def test_whoever_is_second_to_create_takes_the_first_ones_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "key.json"
    first = Identity.generate()
    save = Identity.save

    def late(self: Identity, place: Path) -> None:
        save(first, place)
        save(self, place)

    monkeypatch.setattr(Identity, "save", late)
    assert Identity.load_or_create(path).address == first.address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "key",
        json.dumps({k: v for k, v in RFC_KEY.items() if k != "d"}),
        json.dumps({**RFC_KEY, "crv": "X25519"}),
        json.dumps({**RFC_KEY, "d": "AA"}),
        json.dumps({**RFC_KEY, "d": 5}),
        json.dumps({**RFC_KEY, "x": "PUAXw-hDiVqStwqnTRt-vJyYLM8uxJaMwM1V8Sr0Zgw"}),
        json.dumps({**RFC_KEY, "x": RFC_KEY["x"][:-1] + "p"}),
    ],
)
def test_a_file_without_a_whole_key_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "key.json"
    path.write_text(text)
    with pytest.raises(InvalidKeyFile, match=r"key\.json"):
        Identity.load(path)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidKeyFile, match=r"key\.json cannot be read: No such file"):
        Identity.load(tmp_path / "key.json")


def test_a_token_has_exactly_what_the_contract_says() -> None:
    identity = Identity.generate()
    token = identity.token("server", now=lambda: 1_800_000_000.9, lifetime=60)
    assert part(token, 0) == {"typ": "JWT", "alg": "EdDSA", "jwk": identity.public_jwk}
    claims = part(token, 1)
    assert len(str(claims.pop("jti"))) == 22
    assert claims == {"aud": "server", "iat": 1_800_000_000, "exp": 1_800_000_060}


def test_a_token_lasts_five_minutes_at_most() -> None:
    token = Identity.generate().token("server", now=lambda: 0, lifetime=10**6)
    assert part(token, 1)["exp"] == 300


def test_every_token_has_an_id_of_its_own() -> None:
    identity = Identity.generate()
    assert len({part(identity.token("server"), 1)["jti"] for _ in range(50)}) == 50


def test_a_token_for_calls_that_change_nothing_is_used_again_for_a_minute() -> None:
    identity = Identity.generate()
    first = identity.reusable_token("server", now=lambda: 1_000.0)
    assert identity.reusable_token("server", now=lambda: 1_059.9) == first
    second = identity.reusable_token("server", now=lambda: 1_060.0)
    assert second != first
    assert part(second, 1)["exp"] == 1_180


def test_a_reused_token_is_for_one_server_only() -> None:
    identity = Identity.generate()
    assert part(identity.reusable_token("one"), 1)["aud"] == "one"
    assert part(identity.reusable_token("two"), 1)["aud"] == "two"


def test_a_clock_that_was_set_back_makes_a_new_reusable_token() -> None:
    identity = Identity.generate()
    ahead = identity.reusable_token("server", now=lambda: 10_000.0)
    behind = identity.reusable_token("server", now=lambda: 6_400.0)
    assert behind != ahead
    assert part(behind, 1)["iat"] == 6_400


def test_derived_secrets_differ_by_key_and_purpose() -> None:
    one, two = Identity.generate(), Identity.generate()
    secrets = {one.derive("a"), one.derive("b"), two.derive("a")}
    assert len(secrets) == 3
    assert {len(secret) for secret in secrets} == {32}
    assert one.derive("a") in secrets
