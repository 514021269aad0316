"""Model files that are not what a trainer would send who means well."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

WithTemplate = Callable[[str], Path]


@pytest.fixture
def with_template(smollm2_path: Path, tmp_path: Path) -> WithTemplate:
    """Makes SmolLM2 with another chat template, which must not be longer than its own."""

    def make(template: str) -> Path:
        content = bytearray(smollm2_path.read_bytes())
        key = b"tokenizer.chat_template"
        # In a GGUF a value follows its key: the type, 4 bytes, a text's length, 8 bytes, the text.
        place = content.index(key) + len(key) + 4
        [length] = struct.unpack_from("<Q", content, place)
        text = template.encode().ljust(length)
        assert len(text) == length
        content[place + 8 : place + 8 + length] = text
        path = tmp_path / "templated.gguf"
        path.write_bytes(content)
        return path

    return make
