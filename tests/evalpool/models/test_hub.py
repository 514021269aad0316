"""Files of a hub's repositories."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from evalpool.models import FetchLimits, FetchPolicy, ModelFetchError, fetch, parse_source
from tests.evalpool.models.site import Site, redirecting, serving

CONTENT = os.urandom(300_000)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def refusal(url: str, out: Path, policy: FetchPolicy, limits: FetchLimits) -> str:
    with pytest.raises(ModelFetchError) as caught:
        fetch(parse_source(url), out, policy=policy, limits=limits)
    return str(caught.value)


def test_a_file_of_the_hub_is_resolved_at_its_revision_with_the_token(
    site: Site, policy: FetchPolicy, limits: FetchLimits, out: Path
) -> None:
    path = "/owner/repo/resolve/refs%2Fpr%2F1/dir/a%20b.gguf"
    site.answers[path] = serving(CONTENT)
    fetch(parse_source("hf:owner/repo/dir/a b.gguf@refs/pr/1"), out, policy=policy, limits=limits)
    assert out.read_bytes() == CONTENT
    assert site.requests[0][1]["authorization"] == "Bearer hf_secret"


def test_the_hubs_token_stays_with_the_hub(
    site: Site, policy: FetchPolicy, limits: FetchLimits, out: Path
) -> None:
    site.answers["/owner/repo/resolve/main/a.gguf"] = redirecting(
        f"https://localhost:{site.port}/cdn/a.gguf"
    )
    site.answers["/cdn/a.gguf"] = serving(CONTENT)
    fetch(parse_source("hf:owner/repo/a.gguf"), out, policy=policy, limits=limits)
    assert out.read_bytes() == CONTENT
    assert "authorization" in site.requests[0][1]
    assert "authorization" not in site.requests[1][1]


def test_no_token_is_sent_to_a_plain_download(
    site: Site, policy: FetchPolicy, limits: FetchLimits, out: Path
) -> None:
    site.answers["/a.gguf"] = serving(CONTENT)
    fetch(parse_source(f"{site.url}/a.gguf"), out, policy=policy, limits=limits)
    assert "authorization" not in site.requests[0][1]


def test_without_a_hub_there_is_one_clear_error(limits: FetchLimits, out: Path) -> None:
    policy = FetchPolicy(hub="https://hub.invalid")
    message = refusal("hf:owner/repo/a.gguf", out, policy, limits)
    assert message == (
        "hf:owner/repo/a.gguf@main (hub https://hub.invalid) could not be fetched: "
        "the host hub.invalid could not be resolved"
    )
