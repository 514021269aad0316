"""evalpool: funded benchmarks of language models."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("evalpool")
except PackageNotFoundError:  # pragma: no cover - a source tree that is not installed
    __version__ = "0+unknown"

__all__ = ["__version__"]
