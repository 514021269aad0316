"""Where the model comes from, and how it gets into memory."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Protocol

from evalpool.models import CatalogueModel, ModelError, ModelStore, ensure, find_model
from evalpool_embedding.encoder import Encoder
from evalpool_embedding.gguf_model import GgufModel, gguf_digest
from evalpool_embedding.model import EmbeddingModel, InvalidModel, Pooling, digest_of
from evalpool_embedding.onnx_folder import read_onnx_folder
from evalpool_embedding.onnx_model import OnnxFiles, OnnxModel
from evalpool_runtime.errors import Unavailable, reasons

# What sentence transformers look at where a catalogue entry does not say.
DEFAULT_CONTEXT_LENGTH = 256


class Origin(Protocol):
    """What a model is loaded from.

    Attributes:
        name: How its operator calls it.
        digest: That of all that its vectors depend on, known before it is loaded.
    """

    name: str
    digest: str

    @property
    def is_here(self) -> bool:
        """Whether its files are on this machine, so that loading takes a second."""
        ...

    def load(self, threads: int) -> EmbeddingModel:
        """Load it; blocks, fetching what is missing.

        Raises:
            ModelError: It could not be fetched.
            InvalidModel: The files are no model.
        """
        ...

    def close(self) -> None:
        """Let go of its files."""
        ...


class CatalogueOrigin:
    """Two files of the catalogue, kept in the model store.

    Args:
        store: Where the files are kept.
        model: The catalogue's entry of the ONNX file.
        tokenizer: The catalogue's entry of its `tokenizer.json`.
    """

    def __init__(self, store: ModelStore, model: CatalogueModel, tokenizer: CatalogueModel) -> None:
        self.name = model.name
        self._context_length = model.context_length or DEFAULT_CONTEXT_LENGTH
        self.digest = digest_of(
            onnx=model.sha256 or "",
            onnx_data=[],
            tokenizer=tokenizer.sha256 or "",
            pooling=Pooling.MEAN,
            context_length=self._context_length,
        )
        self._store = store
        self._entries = (model, tokenizer)
        self._pins = contextlib.ExitStack()

    @property
    def is_here(self) -> bool:
        """Whether both files are in the store."""
        return all(
            entry.sha256 is not None and self._store.has(entry.sha256) for entry in self._entries
        )

    def load(self, threads: int) -> EmbeddingModel:
        """Fetch what the store does not have, and load the model."""
        with contextlib.ExitStack() as pins:
            onnx, tokenizer = (
                pins.enter_context(self._store.pinned(ensure(self._store, entry).name))
                for entry in self._entries
            )
            files = OnnxFiles(self.name, self.digest, onnx, tokenizer, self._context_length)
            model = OnnxModel(files, threads=threads)
            # Kept only now: a load that failed leaves nothing pinned.
            self._pins = pins.pop_all()
        return model

    def close(self) -> None:
        """Unpin the files."""
        self._pins.close()


class FolderOrigin:
    """A folder with a Hugging Face ONNX export.

    Args:
        folder: The folder; its files are read for their digest.

    Raises:
        InvalidModel: A file is missing or damaged, or the model is of an unknown make.
    """

    is_here = True

    def __init__(self, folder: Path) -> None:
        self._files = read_onnx_folder(folder)
        self.name = self._files.name
        self.digest = self._files.digest

    def load(self, threads: int) -> EmbeddingModel:
        """Load the model."""
        return OnnxModel(self._files, threads=threads)

    def close(self) -> None:
        """Nothing is held."""


class GgufOrigin:
    """A GGUF file.

    Args:
        path: The file; it is read for its digest.

    Raises:
        InvalidModel: It is no GGUF file.
    """

    is_here = True

    def __init__(self, path: Path) -> None:
        self._path = path
        self.name = path.name
        self.digest = gguf_digest(path)

    def load(self, threads: int) -> EmbeddingModel:
        """Load the model."""
        return GgufModel(self._path, self.digest, threads=threads)

    def close(self) -> None:
        """Nothing is held."""


def find_origin(models_dir: Path, model: str, tokenizer: str) -> Origin:
    """What the settings name; reads files that are given by a path.

    Args:
        models_dir: The model store.
        model: A name in the catalogue, or the absolute path of a folder or of a GGUF file.
        tokenizer: A name in the catalogue, for a model of the catalogue.

    Raises:
        ModelNotFound: The catalogue has no model of this name.
        InvalidModel: The path leads to no model.
    """
    path = Path(model)
    if not path.is_absolute():
        return CatalogueOrigin(ModelStore(models_dir), find_model(model), find_model(tokenizer))
    try:
        return FolderOrigin(path) if path.is_dir() else GgufOrigin(path)
    except OSError as error:
        raise InvalidModel(f"{error.filename}: {error.strerror}; see --model") from error


class ModelSource:
    """Brings the model into memory, at the start where its files are here, else in background.

    Args:
        origin: What it is loaded from.
        threads: Threads that one batch is computed by.
    """

    def __init__(self, origin: Origin, threads: int) -> None:
        self._origin = origin
        self._threads = threads
        self._encoder: Encoder | None = None
        self._loaded = asyncio.Event()
        self._failure = ""

    @property
    def name(self) -> str:
        """How its operator calls it."""
        return self._origin.name

    @property
    def digest(self) -> str:
        """That of all that its vectors depend on, known before it is fetched."""
        return self._origin.digest

    @property
    def dimensions(self) -> int:
        """Numbers in a vector; 0 while the model is not loaded."""
        return self._encoder.model.dimensions if self._encoder else 0

    @property
    def is_here(self) -> bool:
        """Whether its files are on this machine, so that loading takes a second."""
        return self._origin.is_here

    def encoder(self) -> Encoder:
        """The loaded model.

        Raises:
            Unavailable: It is being fetched, or could not be.
        """
        if self._encoder is None:
            raise Unavailable(
                reasons.ERROR_REASON_UNAVAILABLE,
                f"the embedding model {self.name} could not be fetched yet: {self._failure}"
                if self._failure
                else f"the embedding model {self.name} is being fetched; try again",
                retry_after=2.0,
                model=self.name,
            )
        return self._encoder

    async def wait(self) -> Encoder:
        """The model once it is loaded."""
        await self._loaded.wait()
        return self.encoder()

    async def load(self) -> None:
        """Fetch what is missing, and load the model; again is no change.

        Raises:
            ModelError: It could not be fetched.
            InvalidModel: The files are no model.
        """
        if self._encoder is not None:
            return
        try:
            model = await asyncio.to_thread(self._origin.load, self._threads)
        except ModelError as error:
            self._failure = str(error)
            raise
        self._encoder = Encoder(model)
        self._loaded.set()

    async def close(self) -> None:
        """Let go of the model and its files."""
        if self._encoder is not None:
            await self._encoder.close()
        self._origin.close()
