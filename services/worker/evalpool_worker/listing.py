"""The models of a worker, as its calls list them."""

from __future__ import annotations

from collections.abc import Container

from evalpool.models import ModelError, ModelStore, read_gguf
from evalpool.worker.v1 import worker_pb2
from evalpool_worker.model_host import LoadedModel


def loaded_model(model: LoadedModel) -> worker_pb2.LoadedModel:
    """A model in memory."""
    return worker_pb2.LoadedModel(
        digest=model.digest,
        name=model.name,
        size_bytes=model.size_bytes,
        loaded=True,
        in_use=model.in_use,
        context_length=model.info.n_ctx_train,
        quantisation=model.info.quantisation,
    )


def stored_models(store: ModelStore, but: Container[str]) -> list[worker_pb2.LoadedModel]:
    """The models in a store, by digest. Blocks: reads the beginning of each file.

    Args:
        store: Where they are.
        but: Digests to leave out.
    """
    models = []
    # Looking at a file counts as its use: in this order, which file goes first does not change.
    for entry in sorted(store.entries(), key=lambda entry: entry.last_used):
        if entry.digest in but:
            continue
        try:
            header = read_gguf(store.path(entry.digest))
        except (ModelError, FileNotFoundError):
            # The store may hold other files too, such as embedding models; and any may be evicted
            # at this moment.
            continue
        models.append(
            worker_pb2.LoadedModel(
                digest=entry.digest,
                name=header.name or "",
                size_bytes=entry.size_bytes,
                context_length=header.context_length or 0,
                quantisation=header.quantisation or "",
            )
        )
    return sorted(models, key=lambda model: model.digest)
