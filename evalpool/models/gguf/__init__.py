"""Read the header of a GGUF file: what model it holds, and whether it is whole.

The format (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md): magic, version, the numbers
of tensors and of metadata entries; the metadata; a description of each tensor; padding; the data.
Files come from strangers, so every count and length is bounded before it is used, and memory and
time are bounded by constants whatever the file says. What passes can still be refused by llama.cpp,
which alone knows what each architecture needs.
"""

from .header import GgufHeader, read_gguf, read_gguf_stream

__all__ = ["GgufHeader", "read_gguf", "read_gguf_stream"]
