"""Settings from flags, the environment and defaults."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from pydantic import model_validator
from pydantic_settings import SettingsConfigDict

from evalpool.endpoints import PORTS
from evalpool_runtime.settings import Address, Addresses, InvalidSettings, ServiceSettings

ADDRESS = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


class HerdSettings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="EVALPOOL_HERD_", extra="forbid", frozen=True)

    admitted: Addresses = ()
    fewest: int = 1
    most: int = 9

    @model_validator(mode="after")
    def _in_order(self) -> HerdSettings:
        if self.fewest > self.most:
            raise ValueError("fewest must not be more than most")
        return self


def lines(**values: object) -> list[str]:
    with pytest.raises(InvalidSettings) as caught:
        HerdSettings.load(**values)
    return str(caught.value).splitlines()


def test_there_are_defaults_for_everything() -> None:
    settings = HerdSettings.load()
    assert settings.shutdown_grace == 10.0
    assert settings.data_dir.name == "evalpool"


def test_the_environment_replaces_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVALPOOL_HERD_LISTEN", "0.0.0.0:7")
    monkeypatch.setenv("EVALPOOL_HERD_SHUTDOWN_GRACE", "2.5")
    monkeypatch.setenv("EVALPOOL_HERD_DATA_DIR", "somewhere")
    settings = HerdSettings.load()
    assert (settings.listen, settings.shutdown_grace) == ("0.0.0.0:7", 2.5)
    assert settings.data_dir == Path("somewhere")


def test_flags_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVALPOOL_HERD_MOST", "5")
    assert HerdSettings.load(most="7").most == 7


def test_another_services_environment_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVALPOOL_TOKEN_LISTEN", "0.0.0.0:7")
    monkeypatch.setenv("EVALPOOL_TOKEN", "127.0.0.1:50051")
    assert HerdSettings.load().listen is None


@pytest.mark.parametrize("text", [ADDRESS, f" {ADDRESS} , ", f"{ADDRESS},{ADDRESS}"])
def test_addresses_are_separated_by_commas(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVALPOOL_HERD_ADMITTED", text)
    assert set(HerdSettings.load().admitted) == {ADDRESS}


def test_no_addresses_is_an_empty_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVALPOOL_HERD_ADMITTED", "")
    assert HerdSettings.load().admitted == ()


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("listen", "50051", "host:port"),
        ("listen", ":50051", "host:port"),
        ("listen", "127.0.0.1:", "host:port"),
        ("listen", "127.0.0.1:65536", "host:port"),
        ("listen", "127.0.0.1:x", "host:port"),
        ("listen", "", "host:port"),
        ("metrics_listen", "nowhere", "host:port"),
        ("operator", "me", "43 characters of base64url"),
        ("operator", ADDRESS + "=", "43 characters of base64url"),
        ("admitted", f"{ADDRESS},you", "43 characters of base64url"),
        ("shutdown_grace", "-1", "greater than or equal to 0"),
        ("shutdown_grace", "soon", "valid number"),
        ("shutdown_grace", "inf", "finite number"),
        ("log_level", "loud", "'debug', 'info', 'warning' or 'error'"),
        ("log_format", "xml", "'text' or 'json'"),
    ],
)
def test_a_bad_value_is_one_line_that_names_the_flag_and_the_variable(
    name: str, value: str, what: str
) -> None:
    (line,) = lines(**{name: value})
    assert line.startswith(f"--{name.replace('_', '-')} (EVALPOOL_HERD_{name.upper()}): ")
    assert what in line


def test_every_bad_value_has_its_line() -> None:
    found = lines(listen="x", log_level="loud", operator="me")
    assert [line.split()[0] for line in found] == ["--listen", "--operator", "--log-level"]


def test_a_rule_about_several_settings_is_one_line_too() -> None:
    assert lines(fewest=3, most=2) == ["fewest must not be more than most"]


class PeerSettings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="EVALPOOL_PEER_", extra="forbid", frozen=True)

    token_endpoint: str = "127.0.0.1:50051"
    token_address: Address = ""
    router_endpoint: str = ""
    router_address: Address = ""
    dataset_address: Address = ""


def test_a_peer_that_is_called_must_be_known_by_its_address() -> None:
    with pytest.raises(InvalidSettings) as caught:
        PeerSettings.load()
    assert str(caught.value) == (
        "--token-address (EVALPOOL_PEER_TOKEN_ADDRESS): it is empty; give the address that GetInfo "
        "at 127.0.0.1:50051 tells"
    )
    assert PeerSettings.load(token_address=ADDRESS).token_address == ADDRESS
    assert PeerSettings.load(token_endpoint="").token_address == ""


def test_a_setting_that_does_not_exist_is_refused() -> None:
    (line,) = lines(listne="127.0.0.1:1")
    assert line.startswith("--listne")


def test_metrics_may_be_served_nowhere() -> None:
    assert HerdSettings.load(metrics_listen="").metrics_listen == ""


@pytest.mark.parametrize("service", PORTS)
def test_every_service_has_the_port_that_clients_look_for_it_at(service: str) -> None:
    assert importlib.import_module(f"evalpool_{service}.service").SERVICE.port == PORTS[service]


@pytest.mark.parametrize("service", PORTS)
def test_every_setting_of_every_service_is_described_and_has_the_services_prefix(
    service: str,
) -> None:
    settings = importlib.import_module(f"evalpool_{service}.service").SERVICE.settings_type
    assert settings.model_config["env_prefix"] == f"EVALPOOL_{service.upper()}_"
    for name, field in settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name
