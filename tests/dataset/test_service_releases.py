"""A release that changes a part, over real gRPC: what was made before it, and what comes after."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import pytest

from evalpool.dataset.v1 import dataset_pb2
from evalpool_dataset.parts import EvaluatorSpec, Parts, ReplyRules, installed_kinds
from evalpool_dataset.parts.base import Spec
from evalpool_dataset.parts.prompt import ChoicePrompt
from tests.dataset.dataset_harness import (
    ENDED,
    MODEL,
    OTHER_MODEL,
    DatasetHarness,
    evaluated,
    lines,
    refusal,
    running_dataset,
    sending,
    start,
    until,
)
from tests.dataset.router_double import RouterDouble

COMPLETE = dataset_pb2.RUN_STATE_COMPLETE
FAILED = dataset_pb2.RUN_STATE_FAILED
LETTER = dataset_pb2.EVALUATOR_LETTER


@dataclass(frozen=True)
class NextPrompt(ChoicePrompt):
    def spec(self) -> Spec:
        return {**super().spec(), "revision": "choice/2"}


def next_prompt(parts: Parts) -> Parts:
    return replace(parts, prompt=NextPrompt())


def longer_replies(parts: Parts) -> Parts:
    return replace(
        parts, evaluator=EvaluatorSpec(parts.evaluator.evaluator, reply=ReplyRules(max_tokens=8))
    )


@pytest.fixture
async def router() -> AsyncIterator[RouterDouble]:
    async with RouterDouble.knowing(MODEL, OTHER_MODEL) as made:
        yield made


@asynccontextmanager
async def released(
    data_dir: Path, router: RouterDouble, change: Callable[[Parts], Parts] = lambda parts: parts
) -> AsyncIterator[DatasetHarness]:
    """The service as a release runs it that has changed parts of the kind `siqa`."""
    kinds = installed_kinds()
    build = kinds["siqa"].build
    siqa = replace(kinds["siqa"], build=lambda parameters: change(build(parameters)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("evalpool_dataset.service.installed_kinds", lambda: {**kinds, "siqa": siqa})
        async with running_dataset(data_dir, router) as harness:
            yield harness


async def test_a_version_of_another_prompt_keeps_its_scores_and_gets_no_new_ones(
    tmp_path: Path, router: RouterDouble
) -> None:
    async with released(tmp_path, router) as harness:
        before = await evaluated(await harness.load(lines(3)))

    async with released(tmp_path, router, next_prompt) as harness:
        stub = await harness.stub()
        found = (await stub.GetDataset(dataset_pb2.GetDatasetRequest(id="d"))).dataset
        known = await start(stub)
        refused = await refusal(start(stub, OTHER_MODEL))
        options = dataset_pb2.LoadOptions(dataset="d", format=dataset_pb2.DATA_FORMAT_JSON_LINES)
        loaded = (await stub.LoadData(sending(options, [lines(3)]))).dataset
        after = await evaluated(stub)

    assert not found.evaluators
    assert (known.run, known.state, known.version) == (before.run, COMPLETE, before.version)
    assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")
    assert refused.message.startswith("version: it was made with another prompt_template of the")
    assert loaded.version != before.version
    assert loaded.evaluators == ["letter", "loglikelihood"]
    assert (after.state, after.version) == (COMPLETE, loaded.version)
    assert after.run != before.run


async def test_what_was_under_way_fails_and_goes_on_when_its_parts_are_back(
    tmp_path: Path, router: RouterDouble
) -> None:
    router.open.clear()
    async with released(tmp_path, router) as harness:
        run = (await start(await harness.load(lines(3)))).run
        await router.reached.wait()
    router.open.set()
    asked = len(router.prompts)

    async with released(tmp_path, router, next_prompt) as harness:
        stub = await harness.stub()
        failed = await until(stub, run, *ENDED)
        refused = await refusal(start(stub))
        asked_by_another = len(router.prompts) - asked
    async with released(tmp_path, router) as harness:
        again = await evaluated(await harness.stub())

    assert (failed.state, failed.reason_code, failed.failed) == (FAILED, "UNAVAILABLE", 3)
    assert refused.reason == "UNAVAILABLE"
    assert asked_by_another == 0
    assert (again.run, again.state, again.done) == (run, COMPLETE, 3)


async def test_other_parameters_of_an_evaluator_make_another_run(
    tmp_path: Path, router: RouterDouble
) -> None:
    async with released(tmp_path, router) as harness:
        before = await evaluated(await harness.load(lines(3)), evaluator=LETTER)

    async with released(tmp_path, router, longer_replies) as harness:
        after = await evaluated(await harness.stub(), evaluator=LETTER)

    assert after.version == before.version
    assert after.run != before.run
    assert [r.sampling.max_tokens for r in router.inferred] == [4] * 3 + [8] * 3
