"""The GGUF header reader, on files written by hand and on a real one."""

from __future__ import annotations

import ctypes
import io
import struct
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalpool.models.errors import InvalidGguf
from evalpool.models.ggml_types import FILE_TYPES, TENSOR_TYPES
from evalpool.models.gguf import GgufHeader, read_gguf, read_gguf_stream
from tests.evalpool.models.gguf_writer import (
    ARRAY,
    FLOAT32,
    INT32,
    TEXT,
    UINT32,
    UINT64,
    Gguf,
    Tensor,
    scalar,
    string,
    strings,
)


def read(content: bytes) -> GgufHeader:
    return read_gguf_stream(io.BytesIO(content), len(content))


def refusal(content: bytes) -> InvalidGguf:
    with pytest.raises(InvalidGguf) as caught:
        read(content)
    return caught.value


def outcome(file: io.BytesIO, size: int) -> tuple[GgufHeader | None, InvalidGguf | None]:
    """Give the header or the refusal; anything else that is raised fails the test."""
    try:
        return read_gguf_stream(file, size), None
    except InvalidGguf as error:
        return None, error


def test_a_header_tells_what_the_file_holds() -> None:
    content = Gguf().to_bytes()
    assert read(content) == GgufHeader(
        version=3,
        architecture="llama",
        name="Tiny",
        context_length=512,
        quantisation="Q8_0",
        parameters=64 * 4 + 64,
        tensors=2,
        has_chat_template=True,
        license="apache-2.0",
        size_bytes=len(content),
    )


def test_what_a_header_leaves_out_is_none() -> None:
    gguf = Gguf().without("general.name").without("general.license")
    gguf = gguf.without("llama.context_length").without("tokenizer.chat_template")
    header = read(gguf.to_bytes())
    assert (header.name, header.license, header.context_length) == (None, None, None)
    assert not header.has_chat_template


def test_without_a_file_type_the_type_of_most_weights_names_the_quantisation() -> None:
    assert read(Gguf().without("general.file_type").to_bytes()).quantisation == "Q8_0"


def test_a_guessed_file_type_is_the_type_without_the_mark() -> None:
    gguf = Gguf().replace("general.file_type", scalar(UINT32, 1024 + 15))
    assert read(gguf.to_bytes()).quantisation == "Q4_K_M"


def test_version_2_and_an_alignment_of_its_own_are_read() -> None:
    gguf = Gguf(version=2, alignment=64).add("general.alignment", scalar(UINT32, 64))
    gguf.tensors[1].offset = 320
    assert read(gguf.to_bytes()).version == 2


def test_a_very_long_name_is_cut_off() -> None:
    header = read(Gguf().replace("general.name", string("x" * 100_000)).to_bytes())
    assert header.name == "x" * 256


@pytest.mark.parametrize("key", ["general.name", "general.license"])
def test_what_would_drive_a_terminal_or_break_a_database_is_replaced(key: str) -> None:
    header = read(Gguf().replace(key, string("\x1b]0;owned\x07 a\0b\n")).to_bytes())
    shown = header.name if key == "general.name" else header.license
    assert shown == "\ufffd]0;owned\ufffd a\ufffdb\ufffd"


def test_a_file_from_the_disk_is_read(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(Gguf().to_bytes())
    assert read_gguf(path).architecture == "llama"


def test_a_real_model_is_read(smollm2_path: Path) -> None:
    header = read_gguf(smollm2_path)
    assert header.architecture == "llama"
    assert header.context_length == 8192
    assert header.quantisation == "Q4_1"
    assert header.parameters == 134_515_008
    assert header.license == "apache-2.0"
    assert header.has_chat_template


def test_the_tensor_types_are_those_of_ggml() -> None:
    import llama_cpp.llama_cpp as llama

    ggml = llama._lib
    ggml.ggml_type_name.restype = ctypes.c_char_p
    ggml.ggml_type_size.restype = ctypes.c_size_t
    ggml.ggml_blck_size.restype = ctypes.c_int64
    theirs = {
        number: (
            ggml.ggml_type_name(number),
            ggml.ggml_blck_size(number),
            ggml.ggml_type_size(number),
        )
        for number in range(llama.GGML_TYPE_COUNT)
        if ggml.ggml_type_size(number)
    }
    ours = {n: (t.name.lower().encode(), t.block, t.bytes) for n, t in TENSOR_TYPES.items()}
    assert ours == {n: (name.lower(), block, size) for n, (name, block, size) in theirs.items()}


def test_the_file_types_are_those_of_llama_cpp() -> None:
    import llama_cpp.llama_cpp as llama

    theirs = {
        number: name.removeprefix("LLAMA_FTYPE_").removeprefix("MOSTLY_").removeprefix("ALL_")
        for name, number in vars(llama).items()
        if name.startswith("LLAMA_FTYPE_") and number < 1024
    }
    assert theirs == FILE_TYPES


@pytest.mark.parametrize("length", range(0, len(Gguf().to_bytes()), 7))
def test_a_truncated_file_is_refused(length: int) -> None:
    refusal(Gguf().to_bytes()[:length])


def test_a_file_without_its_last_byte_is_refused() -> None:
    error = refusal(Gguf().to_bytes()[:-1])
    assert error.field == "tensor data"
    assert "truncated" in str(error)


def test_bytes_after_the_tensors_do_no_harm() -> None:
    read(Gguf().to_bytes() + b"\0" * 32)


@pytest.mark.parametrize(
    ("content", "field", "offset"),
    [
        (b"", "magic", 0),
        (b"PK\3\4" + b"\0" * 100, "magic", 0),
        (Gguf(magic=b"ggjt").to_bytes(), "magic", 0),
        (Gguf(version=1).to_bytes(), "version", 4),
        (Gguf(version=4).to_bytes(), "version", 4),
        (Gguf(version=3 << 24).to_bytes(), "version", 4),
        (Gguf(tensor_count=0, tensors=[]).to_bytes(), "tensor_count", 8),
        (Gguf(tensor_count=2**63).to_bytes(), "tensor_count", 8),
        (Gguf(tensor_count=100_000).to_bytes(), "tensor_count", 8),
        (Gguf(entry_count=2**64 - 1).to_bytes(), "metadata_kv_count", 16),
        (Gguf(entry_count=10_000).to_bytes(), "metadata_kv_count", 16),
    ],
)
def test_a_wrong_beginning_is_refused_by_field_and_offset(
    content: bytes, field: str, offset: int
) -> None:
    error = refusal(content)
    assert (error.field, error.offset) == (field, offset)
    assert str(error).startswith(f"{field} at byte {offset}: ")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("general.architecture", scalar(UINT32, 1)),
        ("general.architecture", string("")),
        ("general.architecture", string("lla\x1b[2Jma")),
        ("general.architecture", string(b"\xff\xfe")),
        ("general.name", string(b"caf\xe9")),
        ("general.name", struct.pack("<IQ", TEXT, 2**40)),
        ("general.name", struct.pack("<IQ", TEXT, 2**64 - 1)),
        ("general.name", struct.pack("<I", 13)),
        ("llama.context_length", string("512")),
        ("llama.context_length", scalar(INT32, -1)),
        ("llama.context_length", scalar(FLOAT32, 512.0)),
        ("llama.context_length", scalar(UINT64, 2**31)),
        ("tokenizer.ggml.tokens", struct.pack("<IIQ", ARRAY, TEXT, 2**62)),
        ("tokenizer.ggml.tokens", struct.pack("<IIQQ", ARRAY, TEXT, 1, 2**63)),
        ("tokenizer.ggml.scores", struct.pack("<IIQ", ARRAY, FLOAT32, 2**62)),
        ("tokenizer.ggml.scores", struct.pack("<IIQ", ARRAY, ARRAY, 1)),
        ("tokenizer.ggml.scores", struct.pack("<IIQ", ARRAY, 99, 1)),
    ],
)
def test_a_lying_metadata_value_is_refused(key: str, value: bytes) -> None:
    assert key in refusal(Gguf().replace(key, value).to_bytes()).field


def test_a_file_without_an_architecture_is_refused() -> None:
    error = refusal(Gguf().without("general.architecture").to_bytes())
    assert error.field == "general.architecture"


def test_a_key_that_comes_twice_is_refused() -> None:
    assert "twice" in str(refusal(Gguf().add("general.name", string("again")).to_bytes()))


@pytest.mark.parametrize("key", ["", "a\nb", "k" * 1025])
def test_a_key_that_is_none_is_refused(key: str) -> None:
    assert refusal(Gguf().add(key, string("x")).to_bytes()).field == "metadata[10].key"


@pytest.mark.parametrize("value", [scalar(UINT32, 0), scalar(UINT32, 48), scalar(UINT64, 32)])
def test_an_alignment_that_is_no_power_of_two_is_refused(value: bytes) -> None:
    error = refusal(Gguf().add("general.alignment", value).to_bytes())
    assert error.field == "general.alignment"


def test_one_file_of_a_split_model_is_refused_with_the_remedy() -> None:
    error = refusal(Gguf().add("split.count", scalar(UINT32, 3)).to_bytes())
    assert error.field == "split.count"
    assert "llama-gguf-split" in str(error)


@pytest.mark.parametrize(
    ("tensor", "field"),
    [
        (Tensor("n" * 64, [64], 0, 288, 256), "tensors[1].name"),
        (Tensor("token_embd.weight", [64], 0, 288, 256), "tensors[1].name"),
        (Tensor("t", [1, 1, 1, 1, 1], 0, 288, 256), "tensors[1].n_dimensions"),
        (Tensor("t", [0], 0, 288, 256), "tensors[1].dimensions[0]"),
        (Tensor("t", [2**63], 0, 288, 256), "tensors[1].dimensions[0]"),
        (Tensor("t", [2**32, 2**32], 0, 288, 256), "tensors[1].dimensions[1]"),
        (Tensor("t", [64], 4, 288, 256), "tensors[1].type"),
        (Tensor("t", [64], 2**32 - 1, 288, 256), "tensors[1].type"),
        (Tensor("t", [63], 8, 288, 256), "tensors[1].type"),
        (Tensor("t", [64], 0, 2**63, 256), "tensors[1].offset"),
        (Tensor("t", [64], 0, 0, 256), "tensors[1].offset"),
        (Tensor("t", [64], 0, 287, 256), "tensors[1].offset"),
        (Tensor("t", [2**40], 0, 288, 256), "tensor data"),
    ],
)
def test_a_lying_tensor_is_refused(tensor: Tensor, field: str) -> None:
    gguf = Gguf()
    gguf.tensors[1] = tensor
    assert refusal(gguf.to_bytes()).field == field


class _CountingFile(io.BytesIO):
    """Counts what is read, so that a test can bound the work."""

    bytes_read = 0

    def read(self, size: int | None = -1) -> bytes:
        chunk = super().read(size)
        self.bytes_read += len(chunk)
        return chunk


BASE = Gguf().replace("tokenizer.ggml.tokens", strings([f"t{n}" for n in range(300)])).to_bytes()
HEADER_END = len(BASE) - 544

_EXTREMES = st.sampled_from([0, 1, 2**16, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1])
_EDITS = st.lists(
    st.tuples(
        st.integers(0, HEADER_END),
        st.one_of(
            st.binary(min_size=1, max_size=8),
            _EXTREMES.map(lambda number: struct.pack("<Q", number)),
            _EXTREMES.map(lambda number: struct.pack("<I", number & 0xFFFFFFFF)),
        ),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=1500, deadline=None)
@given(edits=_EDITS, cut=st.one_of(st.none(), st.integers(0, len(BASE))))
def test_no_change_of_a_header_makes_the_reader_fail_otherwise_or_read_without_end(
    edits: list[tuple[int, bytes]], cut: int | None
) -> None:
    content = bytearray(BASE)
    for at, replacement in edits:
        content[at : at + len(replacement)] = replacement
    file = _CountingFile(bytes(content[:cut]))
    size = len(content[:cut])
    header, refused = outcome(file, size)
    if refused is not None:
        assert 0 <= refused.offset <= size
    if header is not None:
        assert header.size_bytes == size
        assert 0 < header.parameters < 8 * size * 32
    # Forward once; then a few texts, each by one look back.
    assert file.bytes_read <= 10 * size


@settings(max_examples=300, deadline=None)
@given(content=st.binary(max_size=400))
def test_no_bytes_after_the_magic_make_the_reader_fail_otherwise(content: bytes) -> None:
    content = b"GGUF" + struct.pack("<I", 3) + content
    _, refused = outcome(io.BytesIO(content), len(content))
    assert refused is not None
    assert refused.offset <= len(content)


@pytest.mark.parametrize(
    "gguf",
    [
        Gguf().replace("tokenizer.ggml.tokens", struct.pack("<IIQ", ARRAY, TEXT, 2**35)),
        Gguf().replace("tokenizer.ggml.tokens", struct.pack("<IIQ", ARRAY, TEXT, 4_194_304)),
        Gguf().replace("tokenizer.ggml.scores", struct.pack("<IIQ", ARRAY, FLOAT32, 2**40)),
        Gguf().replace("tokenizer.chat_template", struct.pack("<IQ", TEXT, 2**39)),
        Gguf(tensor_count=131_072),
        Gguf(entry_count=16_384),
    ],
)
def test_a_huge_file_with_lying_counts_costs_little_memory(tmp_path: Path, gguf: Gguf) -> None:
    path = tmp_path / "huge.gguf"
    with path.open("wb") as file:
        file.write(gguf.header())
        file.truncate(2**40)  # a terabyte of nothing, which takes no room on the disk
    tracemalloc.start()
    try:
        with pytest.raises(InvalidGguf):
            read_gguf(path)
        assert tracemalloc.get_traced_memory()[1] < 32 * 1024**2
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("gguf", "words"),
    [
        (Gguf(entry_count=16_385), "it is 16385; at most 16384"),
        (Gguf(tensor_count=131_073), "it is 131073; at most 131072"),
        (
            Gguf().replace("tokenizer.ggml.tokens", struct.pack("<IIQ", ARRAY, TEXT, 4_194_305)),
            "it is 4194305; at most 4194304",
        ),
        (
            Gguf().replace("tokenizer.ggml.tokens", struct.pack("<IIQQ", ARRAY, TEXT, 1, 2**21)),
            "its length is 2097152; at most 1048576",
        ),
        (
            Gguf().replace("tokenizer.ggml.scores", struct.pack("<IIQ", ARRAY, UINT32, 2**26)),
            "the header is longer than 268435456",
        ),
    ],
)
def test_each_bound_holds_where_the_file_is_large_enough(
    tmp_path: Path, gguf: Gguf, words: str
) -> None:
    path = tmp_path / "huge.gguf"
    with path.open("wb") as file:
        file.write(gguf.header())
        file.truncate(2**40)
    with pytest.raises(InvalidGguf, match=words):
        read_gguf(path)


def test_all_arrays_share_one_bound_of_texts(tmp_path: Path) -> None:
    """Two arrays, each allowed alone, are too many together."""
    half = struct.pack("<IIQ", ARRAY, TEXT, 2_200_000) + bytes(8 * 2_200_000)
    gguf = Gguf().replace("tokenizer.ggml.tokens", half).replace("tokenizer.ggml.scores", half)
    assert "at most 1994304" in str(refusal(gguf.to_bytes()))
