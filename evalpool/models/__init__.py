"""Models: where they come from, how they are kept, what is in them.

Everything here blocks; callers with an event loop run it in a thread.
"""

from .catalogue import CatalogueModel, catalogue, find_digest, find_model
from .errors import (
    DigestMismatch,
    InvalidGguf,
    ModelError,
    ModelFetchError,
    ModelInUse,
    ModelNotFound,
    QuantiseError,
    SizeMismatch,
    StoreFull,
)
from .fetch import fetch
from .gguf import GgufHeader, read_gguf
from .partial import sha256_of
from .policy import FetchLimits, FetchPolicy
from .progress import Progress, no_progress
from .pull import ensure, pull
from .quantise import QUANTISATIONS, quantise
from .sources import (
    FileSource,
    HttpsSource,
    HubSource,
    Source,
    WheelPiece,
    WheelSource,
    parse_source,
)
from .store import ModelStore, StoredFile, default_store_root
from .upload import Upload

__all__ = [
    "QUANTISATIONS",
    "CatalogueModel",
    "DigestMismatch",
    "FetchLimits",
    "FetchPolicy",
    "FileSource",
    "GgufHeader",
    "HttpsSource",
    "HubSource",
    "InvalidGguf",
    "ModelError",
    "ModelFetchError",
    "ModelInUse",
    "ModelNotFound",
    "ModelStore",
    "Progress",
    "QuantiseError",
    "SizeMismatch",
    "Source",
    "StoreFull",
    "StoredFile",
    "Upload",
    "WheelPiece",
    "WheelSource",
    "catalogue",
    "default_store_root",
    "ensure",
    "fetch",
    "find_digest",
    "find_model",
    "no_progress",
    "parse_source",
    "pull",
    "quantise",
    "read_gguf",
    "sha256_of",
]
