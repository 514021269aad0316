"""Models are listed by digest, and looking at them changes nothing."""

from __future__ import annotations

import itertools
from pathlib import Path

from evalpool.models import ModelStore
from evalpool_worker.listing import stored_models


def test_what_is_no_model_and_what_is_left_out_is_not_listed(
    tmp_path: Path, smollm2_path: Path
) -> None:
    store = ModelStore(tmp_path)
    digest = store.put_file(smollm2_path)
    store.put_stream([b"a tokenizer, perhaps"])
    [listed] = stored_models(store, ())
    assert listed.digest == digest
    assert listed.size_bytes == smollm2_path.stat().st_size
    assert listed.context_length == 8192
    assert listed.quantisation == "Q4_1"
    assert not listed.loaded
    assert stored_models(store, {digest}) == []


def test_listing_does_not_change_which_file_goes_first(tmp_path: Path) -> None:
    ticks = itertools.count(1)
    store = ModelStore(tmp_path, clock=lambda: next(ticks))
    digests = [store.put_stream([bytes([number]) * 100]) for number in range(20)]
    stored_models(store, ())
    store.capacity_bytes = 20 * 100
    for place in range(19):
        store.put_stream([bytes([100 + place]) * 100])
        assert [store.has(digest) for digest in digests] == [False] * (place + 1) + [True] * (
            19 - place
        )
