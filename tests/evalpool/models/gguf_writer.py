"""Write small GGUF files by hand, right ones and wrong ones."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

TEXT, ARRAY, UINT32, UINT64, INT32, FLOAT32, BOOL = 8, 9, 4, 10, 5, 6, 7
_FORMATS = {UINT32: "<I", UINT64: "<Q", INT32: "<i", FLOAT32: "<f", BOOL: "<B"}


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def scalar(kind: int, value: float) -> bytes:
    return struct.pack("<I", kind) + struct.pack(_FORMATS[kind], value)


def string(value: str | bytes) -> bytes:
    return struct.pack("<I", TEXT) + text(value)


def strings(values: list[str]) -> bytes:
    return struct.pack("<IIQ", ARRAY, TEXT, len(values)) + b"".join(text(v) for v in values)


def numbers(kind: int, values: list[float]) -> bytes:
    return struct.pack("<IIQ", ARRAY, kind, len(values)) + b"".join(
        struct.pack(_FORMATS[kind], v) for v in values
    )


@dataclass
class Tensor:
    name: str
    shape: list[int]
    kind: int
    offset: int
    data_bytes: int


@dataclass
class Gguf:
    """A GGUF file in parts; change one and see whether it is noticed."""

    magic: bytes = b"GGUF"
    version: int = 3
    metadata: list[tuple[str, bytes]] = field(
        default_factory=lambda: [
            ("general.architecture", string("llama")),
            ("general.name", string("Tiny")),
            ("general.license", string("apache-2.0")),
            ("general.file_type", scalar(UINT32, 7)),
            ("llama.context_length", scalar(UINT32, 512)),
            ("llama.rope.freq_base", scalar(FLOAT32, 10000.0)),
            ("tokenizer.ggml.tokens", strings(["<s>", "a", "b", "été"])),
            ("tokenizer.ggml.scores", numbers(FLOAT32, [0.0, 1.0, 2.0, 3.0])),
            ("tokenizer.ggml.add_bos_token", scalar(BOOL, 1)),
            ("tokenizer.chat_template", string("{{ messages }}")),
        ]
    )
    tensors: list[Tensor] = field(
        default_factory=lambda: [
            # Q8_0: 34 bytes for each 32 weights. The next one is aligned to 32 bytes.
            Tensor("token_embd.weight", [64, 4], 8, 0, 272),
            Tensor("output_norm.weight", [64], 0, 288, 256),
        ]
    )
    tensor_count: int | None = None
    entry_count: int | None = None
    alignment: int = 32

    def replace(self, key: str, value: bytes) -> Gguf:
        self.metadata = [(k, value if k == key else v) for k, v in self.metadata]
        return self

    def without(self, key: str) -> Gguf:
        self.metadata = [(k, v) for k, v in self.metadata if k != key]
        return self

    def add(self, key: str, value: bytes) -> Gguf:
        self.metadata.append((key, value))
        return self

    def header(self) -> bytes:
        out = self.magic + struct.pack(
            "<IQQ",
            self.version,
            len(self.tensors) if self.tensor_count is None else self.tensor_count,
            len(self.metadata) if self.entry_count is None else self.entry_count,
        )
        for key, value in self.metadata:
            out += text(key) + value
        for tensor in self.tensors:
            out += text(tensor.name) + struct.pack("<I", len(tensor.shape))
            out += b"".join(struct.pack("<Q", extent) for extent in tensor.shape)
            out += struct.pack("<IQ", tensor.kind, tensor.offset)
        return out

    def to_bytes(self) -> bytes:
        out = self.header()
        out += b"\0" * (-len(out) % self.alignment)
        data = bytearray()
        for tensor in self.tensors:
            data += b"\0" * (-len(data) % self.alignment)
            data += b"\7" * tensor.data_bytes
        return out + bytes(data)
