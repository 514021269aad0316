"""What a fetch may reach."""

from __future__ import annotations

import pytest

from evalpool.models import FetchPolicy


def test_the_token_shows_in_no_text(policy: FetchPolicy) -> None:
    assert "hf_secret" not in repr(policy)


def test_the_environment_gives_hub_token_and_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/")
    monkeypatch.setenv("HF_TOKEN", "hf_abc")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    policy = FetchPolicy.from_environment()
    assert policy.hub == "https://mirror.example"
    assert policy.hub_token == "hf_abc"
    assert policy.proxy == "http://proxy.example:3128"
    assert not policy.private_addresses
    assert policy.file_roots == ()
