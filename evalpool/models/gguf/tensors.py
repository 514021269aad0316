"""The descriptions of a GGUF file's tensors, and whether the file holds their data."""

from __future__ import annotations

from collections import Counter

from evalpool.models.errors import InvalidGguf
from evalpool.models.ggml_types import TENSOR_TYPES

from .cursor import Cursor

MAX_TENSORS = 131_072
"""Tensors at most; the largest models have some thousands."""
MAX_DIMENSIONS = 4
MAX_TENSOR_NAME_BYTES = 63


def check_tensors(cursor: Cursor, count: int, alignment: int) -> tuple[int, Counter[int]]:
    """Check the tensors' descriptions, and that the file holds their data.

    Returns:
        The number of weights, and how many of them each tensor type has.
    """
    names: set[str] = set()
    by_type: Counter[int] = Counter()
    end_of_data = 0
    last_end = 0
    for index in range(count):
        field = f"tensors[{index}]"
        at = cursor.position
        name = cursor.text(f"{field}.name", MAX_TENSOR_NAME_BYTES)
        if name in names:
            raise InvalidGguf(f"{field}.name", at, "two tensors have the same name")
        names.add(name)
        at = cursor.position
        dimensions = cursor.u32(f"{field}.n_dimensions")
        if dimensions > MAX_DIMENSIONS:
            raise InvalidGguf(
                f"{field}.n_dimensions", at, f"it is {dimensions}; at most {MAX_DIMENSIONS} are"
            )
        weights, first = 1, 1
        for axis in range(dimensions):
            at = cursor.position
            extent = cursor.u64(f"{field}.dimensions[{axis}]")
            weights *= extent
            if not 0 < extent < 2**63 or weights >= 2**63:
                raise InvalidGguf(
                    f"{field}.dimensions[{axis}]", at, f"the extent {extent} is impossible"
                )
            first = extent if axis == 0 else first
        at = cursor.position
        number = cursor.u32(f"{field}.type")
        kind = TENSOR_TYPES.get(number)
        if kind is None:
            raise InvalidGguf(f"{field}.type", at, f"the tensor type {number} is not known")
        if first % kind.block:
            raise InvalidGguf(
                f"{field}.type", at, f"rows of {first} do not divide into {kind.name}'s blocks"
            )
        at = cursor.position
        offset = cursor.u64(f"{field}.offset")
        # As llama.cpp: tensors follow one another without gaps but the alignment's.
        if offset != end_of_data:
            raise InvalidGguf(
                f"{field}.offset", at, f"it is {offset}; the tensor should begin at {end_of_data}"
            )
        last_end = offset + weights // kind.block * kind.bytes
        end_of_data = _aligned(last_end, alignment)
        by_type[number] += weights
    if not count:
        raise InvalidGguf("tensor_count", 8, "the file holds no tensors; it is a vocabulary only")
    data = _aligned(cursor.position, alignment)
    if data + last_end > cursor.size:
        raise InvalidGguf(
            "tensor data",
            cursor.size,
            f"the file ends here, and its tensors need {data + last_end} bytes; it is truncated",
        )
    return sum(by_type.values()), by_type


def _aligned(position: int, alignment: int) -> int:
    return (position + alignment - 1) // alignment * alignment
