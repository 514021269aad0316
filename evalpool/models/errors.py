"""What can go wrong with models. Every message is one sentence for the person who asked."""

from __future__ import annotations


class ModelError(Exception):
    """Anything that kept a model from being fetched, kept, read or quantised."""


class ModelFetchError(ModelError):
    """A source could not be fetched, whatever the reason."""


class DigestMismatch(ModelError):
    """Content is not what its digest promises; nothing of it is kept.

    Attributes:
        expected: The SHA-256 that was asked for.
        actual: The SHA-256 of what came.
    """

    def __init__(self, expected: str, actual: str, what: str) -> None:
        self.expected = expected
        self.actual = actual
        super().__init__(
            f"{what} has the SHA-256 {actual}, not {expected}; nothing was kept, "
            "check the digest and the source"
        )


class SizeMismatch(ModelError):
    """Content is longer or shorter than it was announced; nothing of it is kept."""


class ModelNotFound(ModelError):
    """The store has no file with this digest, or the catalogue no model of this name."""


class ModelInUse(ModelError):
    """The file is pinned, or somebody else is writing it; try again later."""


class StoreFull(ModelError):
    """The store's capacity does not suffice, even without everything that may be evicted."""


class QuantiseError(ModelError):
    """llama.cpp could not quantise the model."""


class InvalidGguf(ModelError):
    """A file that is no GGUF model, or a damaged one.

    Attributes:
        field: The part of the header that is wrong, such as "magic" or "tensors[3].offset".
        offset: The position in the file, in bytes, at which it stands.
    """

    def __init__(self, field: str, offset: int, problem: str) -> None:
        self.field = field
        self.offset = offset
        super().__init__(f"{field} at byte {offset}: {problem}")
