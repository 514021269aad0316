"""Digests that sources turned out to have."""

from __future__ import annotations

from evalpool.models import ModelStore, parse_source
from tests.evalpool.models.contents import A, digest_of


def test_a_source_without_a_digest_is_remembered(store: ModelStore) -> None:
    source = parse_source("hf:owner/repo/a.gguf")
    assert store.learned_digest(source) is None
    store.learn_digest(source, digest_of(A))
    assert ModelStore(store.root).learned_digest(source) == digest_of(A)
    assert store.learned_digest(parse_source("hf:owner/repo/b.gguf")) is None


def test_a_note_that_a_crash_cut_off_is_none(store: ModelStore) -> None:
    source = parse_source("hf:owner/repo/a.gguf")
    store.learn_digest(source, digest_of(A))
    (note,) = (store.root / "learned").iterdir()
    note.write_text(note.read_text()[:30])
    assert store.learned_digest(source) is None
