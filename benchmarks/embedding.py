"""What does the embedding service add to its model and to Chroma?

Documents a second: `UploadDataset` over gRPC until the set is ready, beside the bare ONNX session
on the same texts, already tokenised and put into the same batches. Queries a second at 20,000
documents, beside bare Chroma given the same model's vectors, one after another and eight at once.
Service and bare run alternate. How many of the ten nearest documents, by exact arithmetic, a search
finds. At the end: the service's memory, in a process of its own.

    python -m benchmarks.embedding --json embedding.json
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import chromadb
import numpy as np
import onnxruntime
import psutil
import structlog
import uvloop
from chromadb.config import Settings
from tokenizers import Tokenizer

from benchmarks.measurement import (
    Finding,
    Spread,
    machine,
    print_findings,
    print_table,
    write_report,
)
from evalpool.embedding.v1 import embedding_pb2 as pb
from evalpool.embedding.v1.embedding_pb2_grpc import EmbeddingServiceStub
from evalpool.identity import Identity
from evalpool.models.catalogue import find_model
from evalpool.models.pull import ensure
from evalpool.models.store import ModelStore, default_store_root
from evalpool_embedding.chroma import EmbeddedChroma
from evalpool_embedding.documents import Document, content_digest
from evalpool_embedding.model import Vectors, plan_batches
from evalpool_embedding.model_source import CatalogueOrigin
from evalpool_embedding.onnx_model import (
    BATCH_TEXTS,
    BATCH_TOKENS,
    OnnxFiles,
    OnnxModel,
)
from evalpool_embedding.service import SERVICE
from evalpool_embedding.store import contents, sets
from evalpool_embedding.vectors import CONFIGURATION, VectorIndex
from evalpool_runtime.database import Database
from evalpool_runtime.migrations import migrate
from evalpool_runtime.testing import running

MODEL, TOKENIZER = "all-MiniLM-L6-v2-int8", "all-MiniLM-L6-v2-tokenizer"
LARGE = 20_000
LARGE_WORDS = 12
TOP_K = 10
QUERIES = 200
LEAST_RATIO = {"documents/s": 0.9, "queries/s": 0.8}
LEAST_RECALL = 0.95
MOST_MIB = 600.0
MESSAGE_DOCUMENTS = 500
WORDS = tuple(
    f"{adjective} {noun}"
    for adjective in ("small", "green", "quiet", "early", "broken", "distant", "warm")
    for noun in ("river", "question", "engine", "garden", "letter", "market", "teacher", "bridge")
)


class Bare:
    """The ONNX session as anybody opens it, with as many threads as the service's."""

    def __init__(self, files: OnnxFiles) -> None:
        self._tokenizer = Tokenizer.from_file(str(files.tokenizer))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(files.context_length)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 2
        self._session = onnxruntime.InferenceSession(
            str(files.onnx), options, providers=["CPUExecutionProvider"]
        )

    def prepare(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        """The session's inputs, batch by batch."""
        encodings = self._tokenizer.encode_batch_fast(list(texts))
        feeds = []
        for places in plan_batches(
            [len(each.ids) for each in encodings], max_texts=BATCH_TEXTS, max_tokens=BATCH_TOKENS
        ):
            longest = max(len(encodings[place].ids) for place in places)
            ids = np.zeros((len(places), longest), np.int64)
            mask = np.zeros_like(ids)
            for row, place in enumerate(places):
                ids[row, : len(encodings[place].ids)] = encodings[place].ids
                mask[row, : len(encodings[place].ids)] = 1
            feeds.append(
                {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
            )
        return feeds

    def run(self, feeds: Sequence[dict[str, Any]]) -> None:
        """Compute every batch, and nothing else."""
        for feed in feeds:
            self._session.run(None, feed)


def texts(count: int, seed: int) -> list[str]:
    """Texts of 6 to 60 words, no two alike."""
    source = random.Random(seed)
    return [
        f"{n} " + " ".join(source.choice(WORDS) for _ in range(source.randint(3, 30)))
        for n in range(count)
    ]


async def upload(stub: Any, name: str, contents: Sequence[str]) -> None:
    """Upload a set and wait until it is ready."""
    messages = [
        pb.UploadDatasetRequest(
            hash="" if start else name,
            list=[
                pb.Document(content=text) for text in contents[start : start + MESSAGE_DOCUMENTS]
            ],
        )
        for start in range(0, len(contents), MESSAGE_DOCUMENTS)
    ]
    last = None
    async for response in stub.UploadDataset(iter(messages)):
        last = response.dataset.state
    if last != pb.DOCUMENT_SET_STATE_READY:
        raise SystemExit(f"The set {name} is not ready but in state {last}.")


async def measure_documents(stub: Any, bare: Bare, count: int, pairs: int) -> dict[str, Any]:
    """Documents a second, service and bare session in turn."""
    service, session = [], []
    await upload(stub, "warm-up", texts(64, seed=0))
    for pair in range(pairs):
        contents = texts(count, seed=pair + 1)
        feeds = bare.prepare(contents)
        started = time.perf_counter()
        await upload(stub, f"set-{pair}", contents)
        service.append(count / (time.perf_counter() - started))
        started = time.perf_counter()
        await asyncio.to_thread(bare.run, feeds)
        session.append(count / (time.perf_counter() - started))
    return _compared(service, session)


async def prepare_large(data_dir: Path, owner: str, model: OnnxModel) -> tuple[Any, Vectors]:
    """A ready set of 20,000 documents in the service's own files, the same in bare Chroma.

    Returns:
        Chroma's collection, and the vectors.
    """
    database = Database.open(f"sqlite:///{data_dir / 'embedding.db'}")
    await migrate(database, "evalpool_embedding.migrations")
    listed = [Document(" ".join(t.split()[:LARGE_WORDS]), {}) for t in texts(LARGE, seed=1)]
    now = datetime.now(UTC)
    made, _ = await database.write(
        lambda c: sets.create(c, owner, "large", content_digest(listed), listed, model.digest, now)
    )
    await database.write(lambda c: contents.advance(c, made.content, LARGE, now))
    await database.close()
    vectors = await asyncio.to_thread(model.encode, [each.content for each in listed])
    index = VectorIndex(EmbeddedChroma(data_dir / "chroma"))
    index.put(made.content.collection, 0, vectors, [{}] * LARGE)
    index.close()
    client = chromadb.PersistentClient(
        data_dir / "bare", settings=Settings(anonymized_telemetry=False)
    )
    collection: Any = client.create_collection(
        "large", configuration=CONFIGURATION, embedding_function=None
    )
    for start in range(0, LARGE, MESSAGE_DOCUMENTS):
        part = slice(start, start + MESSAGE_DOCUMENTS)
        collection.add(
            ids=[str(place) for place in range(LARGE)[part]],
            embeddings=vectors[part],
            documents=[each.content for each in listed[part]],
        )
    return collection, vectors


def prompts() -> list[str]:
    """What is searched for: the beginnings of texts that are not in the set."""
    return [text[:60] for text in texts(QUERIES, seed=9)]


async def measure_recall(stub: Any, model: OnnxModel, vectors: Vectors) -> Spread:
    """The share of the ten nearest documents that a search finds, prompt by prompt."""
    wanted = await asyncio.to_thread(model.encode, prompts())
    shares = []
    for prompt, vector in zip(prompts(), wanted, strict=True):
        response = await stub.SearchPrompt(
            pb.SearchPromptRequest(dataset_hash="large", prompt=prompt, top_k=TOP_K)
        )
        cosines = vectors @ vector
        # Documents that are as near as the tenth are as good as it.
        least = np.sort(cosines)[-TOP_K] - 1e-6
        found = sum(cosines[each.index] >= least for each in response.results)
        shares.append(min(found, TOP_K) / TOP_K)
    return Spread((statistics.mean(shares),), statistics.mean(shares), min(shares), max(shares))


async def measure_queries(
    stub: Any, model: OnnxModel, collection: Any, pairs: int, at_once: int
) -> dict[str, Any]:
    """Queries a second, service and bare Chroma in turn."""
    limit = asyncio.Semaphore(at_once)

    async def ask(prompt: str) -> None:
        async with limit:
            await stub.SearchPrompt(
                pb.SearchPromptRequest(dataset_hash="large", prompt=prompt, top_k=TOP_K)
            )

    def ask_bare(prompt: str) -> None:
        collection.query(query_embeddings=model.encode([prompt]), n_results=TOP_K)

    async def round_of_service() -> None:
        await asyncio.gather(*(ask(prompt) for prompt in prompts()))

    def round_of_bare() -> None:
        with ThreadPoolExecutor(at_once) as threads:
            list(threads.map(ask_bare, prompts()))

    service, alone = [], []
    await round_of_service()
    await asyncio.to_thread(round_of_bare)
    for _ in range(pairs):
        started = time.perf_counter()
        await round_of_service()
        service.append(QUERIES / (time.perf_counter() - started))
        started = time.perf_counter()
        await asyncio.to_thread(round_of_bare)
        alone.append(QUERIES / (time.perf_counter() - started))
    return _compared(service, alone)


async def measure_memory() -> dict[str, float]:
    """This process's memory as a service: at the start, and after long documents and queries."""
    process = psutil.Process()
    owner = Identity.generate()
    with tempfile.TemporaryDirectory() as folder:
        async with running(SERVICE, Path(folder)) as service:
            at_start = process.memory_info().rss / 2**20
            async with service.channel(owner) as channel:
                stub: Any = EmbeddingServiceStub(channel)
                await upload(stub, "set", [text * 8 for text in texts(128, seed=1)])
                for prompt in texts(30, seed=2):
                    await stub.SearchPrompt(
                        pb.SearchPromptRequest(dataset_hash="set", prompt=prompt)
                    )
            return {"start": at_start, "used": process.memory_info().rss / 2**20}


def _compared(service: Sequence[float], bare: Sequence[float]) -> dict[str, Any]:
    return {
        "service": Spread.of(service),
        "bare": Spread.of(bare),
        "ratio": Spread.of([mine / theirs for mine, theirs in zip(service, bare, strict=True)]),
    }


async def measure(arguments: argparse.Namespace) -> tuple[dict[str, Any], Spread]:
    """Everything but memory: what is compared with the bare parts, and the recall."""
    models = ModelStore(default_store_root())
    entries = [find_model(name) for name in (MODEL, TOKENIZER)]
    onnx, tokenizer = (ensure(models, entry) for entry in entries)
    files = OnnxFiles(MODEL, CatalogueOrigin(models, *entries).digest, onnx, tokenizer, 256)
    bare, model = Bare(files), OnnxModel(files)
    owner = Identity.generate()
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder)
        collection, vectors = await prepare_large(data_dir, owner.address, model)
        async with (
            running(SERVICE, data_dir) as service,
            service.channel(owner) as channel,
        ):
            stub: Any = EmbeddingServiceStub(channel)
            figures["documents/s"] = await measure_documents(
                stub, bare, arguments.documents, arguments.pairs
            )
            for at_once in (1, 8):
                figures[f"queries/s, {at_once} at once"] = await measure_queries(
                    stub, model, collection, arguments.pairs, at_once
                )
            recall = await measure_recall(stub, model, vectors)
    return figures, recall


def main() -> None:
    """Measure, print a table, write the report."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, default=300, help="documents a run")
    parser.add_argument("--pairs", type=int, default=5, help="runs of each side")
    parser.add_argument("--json", type=Path, help="where the report goes")
    parser.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory:
        print(*uvloop.run(measure_memory()).values())
        return
    report: dict[str, Any] = {"machine": machine()}
    figures, recall = uvloop.run(measure(arguments))
    report |= {"figures": figures, "recall": recall}
    memory = subprocess.run(
        [sys.executable, __file__, "--memory"], capture_output=True, text=True, check=True
    ).stdout.split()
    report["memory_mib"] = dict(zip(("start", "used"), map(float, memory), strict=True))
    print_table(
        [
            ("", "service", "bare", "ratio"),
            *(
                (name, str(each["service"]), str(each["bare"]), str(each["ratio"]))
                for name, each in figures.items()
            ),
        ]
    )
    findings = [
        Finding(f"{name} ÷ bare", each["ratio"], least=LEAST_RATIO[name.partition(",")[0]])
        for name, each in figures.items()
    ]
    findings.append(Finding("recall@10 at 20,000 documents", recall, least=LEAST_RECALL))
    used = Spread.of([report["memory_mib"]["used"]])
    findings.append(Finding("memory, MiB", used, most=MOST_MIB))
    print()
    print_findings(findings)
    if arguments.json:
        write_report(arguments.json, report | {"findings": findings})


if __name__ == "__main__":
    main()
