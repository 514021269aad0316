"""The store against a model of it: what a bounded, content-addressed store must do, always."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from contextlib import ExitStack
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from evalpool.models import ModelInUse, ModelNotFound, ModelStore, StoreFull

CAPACITY = 1000
CONTENTS = {letter: letter.encode() * (70 * (index + 1)) for index, letter in enumerate("abcdef")}
DIGESTS = {letter: hashlib.sha256(content).hexdigest() for letter, content in CONTENTS.items()}
_LETTERS = st.sampled_from(sorted(CONTENTS))


class StoreMachine(RuleBasedStateMachine):
    """Puts, uploads, uses, pins and removes; the order of last use is the model."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.now = 1_000_000
        self.open()
        self.order: list[str] = []
        self.pins: dict[str, list[ExitStack]] = {}
        self.parts: dict[str, int] = {}

    def open(self) -> None:
        self.store = ModelStore(
            Path(self.folder.name), capacity_bytes=CAPACITY, clock=self.tick, partial_seconds=1e9
        )

    def tick(self) -> float:
        self.now += 1
        return float(self.now)

    def used(self, letter: str) -> None:
        self.order = [each for each in self.order if each != letter] + [letter]

    def occupied(self) -> int:
        kept = sum(len(CONTENTS[letter]) for letter in self.order)
        return kept + sum(len(CONTENTS[letter]) for letter in self.parts)

    def make_room(self, needed: int) -> bool:
        """Evict as the store should; False, and nothing evicted, if it can't suffice."""
        excess = self.occupied() + needed - CAPACITY
        victims = []
        for letter in self.order:
            if excess <= 0:
                break
            if not self.pins.get(letter):
                victims.append(letter)
                excess -= len(CONTENTS[letter])
        if excess > 0:
            return False
        self.order = [letter for letter in self.order if letter not in victims]
        return True

    @rule(letter=_LETTERS)
    def put(self, letter: str) -> None:
        fits = self.make_room(len(CONTENTS[letter]))
        try:
            self.store.put_stream(
                [CONTENTS[letter]], digest=DIGESTS[letter], size=len(CONTENTS[letter])
            )
        except StoreFull:
            assert not fits
        else:
            assert fits
            self.used(letter)

    @rule(letter=_LETTERS, share=st.floats(0.1, 1.0))
    def upload(self, letter: str, share: float) -> None:
        content = CONTENTS[letter]
        already = self.parts.pop(letter, None)
        fits = self.make_room(len(content))
        if not fits and already is not None:
            self.parts[letter] = already
        try:
            upload = self.store.begin_upload(DIGESTS[letter], len(content))
        except StoreFull:
            assert not fits
            return
        assert fits
        with upload:
            assert upload.offset == (already or 0)
            until = max(upload.offset, int(len(content) * share), 1)
            upload.write(content[upload.offset : until])
            if until == len(content):
                upload.commit()
                self.used(letter)
            else:
                self.parts[letter] = until

    @rule(letter=_LETTERS)
    def use(self, letter: str) -> None:
        try:
            self.store.path(DIGESTS[letter])
        except ModelNotFound:
            assert letter not in self.order
        else:
            assert letter in self.order
            self.used(letter)

    @rule(letter=_LETTERS)
    def pin(self, letter: str) -> None:
        stack = ExitStack()
        try:
            stack.enter_context(self.store.pinned(DIGESTS[letter]))
        except ModelNotFound:
            assert letter not in self.order
        else:
            assert letter in self.order
            self.pins.setdefault(letter, []).append(stack)
            self.used(letter)

    @rule(letter=_LETTERS)
    def unpin(self, letter: str) -> None:
        if self.pins.get(letter):
            self.pins[letter].pop().close()

    @rule(letter=_LETTERS)
    def remove(self, letter: str) -> None:
        try:
            self.store.remove(DIGESTS[letter])
        except ModelNotFound:
            assert letter not in self.order
        except ModelInUse:
            assert self.pins.get(letter)
        else:
            assert not self.pins.get(letter)
            self.order.remove(letter)

    @rule()
    def start_again(self) -> None:
        self.open()

    @invariant()
    def holds_what_it_should(self) -> None:
        entries = self.store.entries()
        assert {entry.digest for entry in entries} == {DIGESTS[each] for each in self.order}
        assert self.occupied() <= CAPACITY
        pinned = {DIGESTS[letter] for letter, stacks in self.pins.items() if stacks}
        assert {entry.digest for entry in entries if entry.pinned} == pinned
        by_use = sorted(entries, key=lambda entry: entry.last_used)
        assert [entry.digest for entry in by_use] == [DIGESTS[each] for each in self.order]

    def teardown(self) -> None:
        with contextlib.ExitStack() as everything:
            everything.callback(self.folder.cleanup)
            for stacks in self.pins.values():
                for stack in stacks:
                    everything.callback(stack.close)


StoreMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
test_the_store_behaves_as_its_model = StoreMachine.TestCase
