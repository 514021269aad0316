"""The rules of requests' fields."""

from __future__ import annotations

from typing import Any

import pytest

from evalpool.dataset.v1 import dataset_pb2
from evalpool.identity import Identity
from evalpool.values import InvalidFields
from evalpool_dataset.loaders import Format
from evalpool_dataset.parts import Evaluator, installed_kinds
from evalpool_dataset.requests import (
    MAX_LABELS_BYTES,
    parse_benchmark,
    parse_create,
    parse_options,
)
from evalpool_dataset.scoring import Metric
from evalpool_runtime.errors import InvalidRequest

KINDS = installed_kinds()
ADDRESS = Identity.generate().address


def violated(parse: Any, *arguments: Any) -> set[str]:
    with pytest.raises(InvalidFields) as caught:
        parse(*arguments)
    return {violation.field for violation in caught.value.violations}


def create(**fields: Any) -> dataset_pb2.CreateDatasetRequest:
    return dataset_pb2.CreateDatasetRequest(**{"id": "d", "kind": "siqa"} | fields)


def options(**fields: Any) -> dataset_pb2.LoadOptions:
    given: dict[str, Any] = {
        "dataset": "d",
        "format": dataset_pb2.DATA_FORMAT_CSV,
        "sha256": "0" * 64,
    } | fields
    return dataset_pb2.LoadOptions(**given)


def benchmark(**fields: Any) -> dataset_pb2.BenchmarkRequest:
    return dataset_pb2.BenchmarkRequest(**{"dataset": "d", "subject": "a" * 64} | fields)


def test_what_is_left_out_is_the_kinds_default() -> None:
    new = parse_create(create(), KINDS)
    defaults = KINDS["siqa"].defaults
    assert (new.id, new.title, new.description, new.license) == ("d", "d", "", "")
    assert new.parameters == defaults


def test_what_is_given_is_taken() -> None:
    new = parse_create(
        create(
            title="T",
            evaluator=dataset_pb2.EVALUATOR_LETTER,
            metric=dataset_pb2.METRIC_ACC_BYTES,
            system_prompt="One letter.",
        ),
        KINDS,
    )
    assert new.title == "T"
    assert new.parameters.evaluator is Evaluator.LETTER
    assert new.parameters.metric is Metric.ACC_BYTES
    assert new.parameters.system_prompt == "One letter."


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"id": ""}, "id"),
        ({"id": "A"}, "id"),
        ({"id": "-a"}, "id"),
        ({"id": "a" * 64}, "id"),
        ({"kind": "no"}, "kind"),
        ({"kind": ""}, "kind"),
        ({"title": "x" * 201}, "title"),
        ({"description": "x" * 4001}, "description"),
        ({"license": "x" * 201}, "license"),
        ({"system_prompt": "x" * 4001}, "system_prompt"),
        ({"request_id": "a b"}, "request_id"),
        ({"evaluator": 77}, "evaluator"),
        ({"metric": 77}, "metric"),
    ],
)
def test_a_dataset_that_breaks_a_rule_is_refused(fields: dict[str, Any], field: str) -> None:
    assert violated(parse_create, create(**fields), KINDS) == {field}


def test_an_evaluator_that_the_kind_cannot_use_is_a_mismatch() -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_create(create(evaluator=dataset_pb2.EVALUATOR_JUDGE), KINDS)
    assert caught.value.reason_name == "EVALUATOR_MISMATCH"


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (dataset_pb2.DATA_FORMAT_JSON_LINES, Format.JSON_LINES),
        (dataset_pb2.DATA_FORMAT_JSON_ARRAY, Format.JSON_ARRAY),
        (dataset_pb2.DATA_FORMAT_CSV, Format.CSV),
        (dataset_pb2.DATA_FORMAT_PARQUET, Format.PARQUET),
    ],
)
def test_every_form_is_known(form: Any, expected: Format) -> None:
    assert parse_options(options(format=form)).format is expected


def test_no_labels_are_none() -> None:
    assert parse_options(options()).labels is None
    assert parse_options(options(labels=b"1\n")).labels == b"1\n"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"dataset": "NO"}, "options.dataset"),
        ({"source": "x" * 1001}, "options.source"),
        ({"sha256": "g" * 64}, "options.sha256"),
        ({"sha256": ""}, "options.sha256"),
        ({"format": 0}, "options.format"),
        ({"format": 9}, "options.format"),
        ({"labels": b"1" * (MAX_LABELS_BYTES + 1)}, "options.labels"),
    ],
)
def test_options_that_break_a_rule_are_refused(fields: dict[str, Any], field: str) -> None:
    assert violated(parse_options, options(**fields)) == {field}


def test_a_run_is_read() -> None:
    new = parse_benchmark(benchmark(participant=ADDRESS, version="b" * 64))
    assert (new.dataset, new.version, new.subject) == ("d", "b" * 64, "a" * 64)
    assert (new.evaluator, new.participant) == (None, ADDRESS)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"dataset": ""}, "dataset"),
        ({"subject": "a" * 63}, "subject"),
        ({"version": "x"}, "version"),
        ({"participant": "somebody"}, "participant"),
        ({"request_id": "é"}, "request_id"),
        ({"evaluator": 9}, "evaluator"),
    ],
)
def test_a_run_that_breaks_a_rule_is_refused(fields: dict[str, Any], field: str) -> None:
    assert violated(parse_benchmark, benchmark(**fields)) == {field}
