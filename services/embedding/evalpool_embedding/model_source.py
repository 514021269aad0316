"""Where the model comes from: the model store, filled from the catalogue."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from evalpool.models.catalogue import CatalogueModel, find_model
from evalpool.models.errors import ModelError
from evalpool.models.pull import ensure
from evalpool.models.store import ModelStore
from evalpool_embedding.encoder import Encoder
from evalpool_embedding.model import EmbeddingModel, ModelFiles
from evalpool_runtime.errors import Unavailable, reasons

# What sentence transformers look at where a catalogue entry does not say.
DEFAULT_CONTEXT_LENGTH = 256


class ModelSource:
    """Brings the model into memory, at the start where it lies in the store, else in background.

    Args:
        store: Where the files are kept.
        model: The catalogue's entry of the ONNX file.
        tokenizer: The catalogue's entry of its `tokenizer.json`.
        threads: Threads that one batch is computed by.
    """

    def __init__(
        self, store: ModelStore, model: CatalogueModel, tokenizer: CatalogueModel, threads: int
    ) -> None:
        self._store = store
        self._model = model
        self._tokenizer = tokenizer
        self._threads = threads
        self._pins = contextlib.ExitStack()
        self._encoder: Encoder | None = None
        self._loaded = asyncio.Event()
        self._failure = ""

    @classmethod
    def of_catalogue(
        cls, models_dir: Path, model: str, tokenizer: str, threads: int
    ) -> ModelSource:
        """The model of these names in the catalogue.

        Raises:
            ModelNotFound: The catalogue has no model of this name.
        """
        return cls(ModelStore(models_dir), find_model(model), find_model(tokenizer), threads)

    @property
    def name(self) -> str:
        """The model's name in the catalogue."""
        return self._model.name

    @property
    def digest(self) -> str:
        """The SHA-256 of its ONNX file, known before it is fetched."""
        return self._model.sha256 or ""

    @property
    def dimensions(self) -> int:
        """Numbers in a vector; 0 while the model is not loaded."""
        return self._encoder.model.dimensions if self._encoder else 0

    @property
    def is_stored(self) -> bool:
        """Whether both files are in the store, so that loading takes a second."""
        return all(
            entry.sha256 is not None and self._store.has(entry.sha256)
            for entry in (self._model, self._tokenizer)
        )

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
        """Fetch what the store does not have, and load the model; again is no change.

        Raises:
            ModelError: It could not be fetched.
            InvalidModel: The files are no model.
        """
        if self._encoder is not None:
            return
        try:
            model = await asyncio.to_thread(self._load)
        except ModelError as error:
            self._failure = str(error)
            raise
        self._encoder = Encoder(model)
        self._loaded.set()

    async def close(self) -> None:
        """Let go of the model and its files."""
        if self._encoder is not None:
            await self._encoder.close()
        self._pins.close()

    def _load(self) -> EmbeddingModel:
        with contextlib.ExitStack() as pins:
            onnx, tokenizer = (
                pins.enter_context(self._store.pinned(ensure(self._store, entry).name))
                for entry in (self._model, self._tokenizer)
            )
            files = ModelFiles(
                self._model.name,
                onnx.name,
                onnx,
                tokenizer,
                self._model.context_length or DEFAULT_CONTEXT_LENGTH,
            )
            model = EmbeddingModel(files, threads=self._threads)
            # Kept only now: a load that failed leaves nothing pinned.
            self._pins = pins.pop_all()
        return model
