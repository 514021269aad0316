"""The dataset service's requests: their fields' rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from evalpool.dataset.v1 import dataset_pb2
from evalpool.values import (
    Fields,
    InvalidValue,
    parse_address,
    parse_dataset_id,
    parse_digest,
    parse_request_id,
    parse_text,
)
from evalpool_dataset.loaders import Format
from evalpool_dataset.messages import EVALUATORS, METRICS
from evalpool_dataset.parts import Evaluator, Kind, Parameters
from evalpool_dataset.scoring import Metric
from evalpool_runtime.errors import InvalidRequest, reasons

MAX_LABELS_BYTES = 16 * 1024 * 1024

_EVALUATORS = {value: key for key, value in EVALUATORS.items()}
_METRICS = {value: key for key, value in METRICS.items()}
_FORMATS = {
    dataset_pb2.DATA_FORMAT_JSON_LINES: Format.JSON_LINES,
    dataset_pb2.DATA_FORMAT_JSON_ARRAY: Format.JSON_ARRAY,
    dataset_pb2.DATA_FORMAT_CSV: Format.CSV,
    dataset_pb2.DATA_FORMAT_PARQUET: Format.PARQUET,
}


@dataclass(frozen=True, slots=True)
class NewDataset:
    """A dataset to make."""

    id: str
    kind: Kind
    title: str
    description: str
    license: str
    parameters: Parameters


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file of questions that is about to come."""

    dataset: str
    format: Format
    source: str
    sha256: str
    labels: bytes | None


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run to start."""

    dataset: str
    version: str
    subject: str
    evaluator: Evaluator | None
    participant: str


def parse_create(
    request: dataset_pb2.CreateDatasetRequest, kinds: Mapping[str, Kind]
) -> NewDataset:
    """Read a CreateDatasetRequest.

    Raises:
        InvalidFields: With every violation.
    """
    fields = Fields()

    def parse_kind(text: str) -> Kind:
        if text not in kinds:
            known = ", ".join(sorted(kinds))
            raise InvalidValue(f'there is no kind "{text}"; give one of {known}')
        return kinds[text]

    dataset = fields.parse("id", parse_dataset_id, request.id)
    kind = fields.parse("kind", parse_kind, request.kind)
    title = fields.parse("title", lambda t: parse_text(t, at_most=200), request.title)
    description = fields.parse(
        "description", lambda t: parse_text(t, at_most=4000), request.description
    )
    license_ = fields.parse("license", lambda t: parse_text(t, at_most=200), request.license)
    system_prompt = fields.parse(
        "system_prompt", lambda t: parse_text(t, at_most=4000), request.system_prompt
    )
    if request.request_id:
        fields.parse("request_id", parse_request_id, request.request_id)
    evaluator = _evaluator(fields, request.evaluator)
    metric = _metric(fields, request.metric)
    fields.check()
    parameters = Parameters(
        evaluator=evaluator or kind.defaults.evaluator,
        metric=metric or kind.defaults.metric,
        system_prompt=system_prompt or kind.defaults.system_prompt,
    )
    if parameters.evaluator not in kind.evaluators:
        usable = " or ".join(sorted(kind.evaluators))
        fields.refuse("evaluator", f"{kind.name} cannot be used with it; give {usable}")
        raise InvalidRequest(fields.violations, reason=reasons.ERROR_REASON_EVALUATOR_MISMATCH)
    return NewDataset(dataset, kind, title or dataset, description, license_, parameters)


def parse_options(options: dataset_pb2.LoadOptions) -> NewFile:
    """Read the first message of LoadData.

    Raises:
        InvalidFields: With every violation.
    """
    fields = Fields()
    dataset = fields.parse("options.dataset", parse_dataset_id, options.dataset)
    source = fields.parse("options.source", lambda t: parse_text(t, at_most=1000), options.source)
    # Without it a file that was cut off on its way would look whole.
    fields.parse("options.sha256", parse_digest, options.sha256)
    form = _FORMATS.get(options.format)
    if form is None:
        fields.refuse(
            "options.format", "it is not set; give JSON_LINES, JSON_ARRAY, CSV or PARQUET"
        )
    if len(options.labels) > MAX_LABELS_BYTES:
        fields.refuse("options.labels", f"they are larger than {MAX_LABELS_BYTES} bytes")
    fields.check()
    return NewFile(
        dataset, form or Format.JSON_LINES, source, options.sha256, options.labels or None
    )


def parse_benchmark(request: dataset_pb2.BenchmarkRequest) -> NewRun:
    """Read a BenchmarkRequest.

    Raises:
        InvalidFields: With every violation.
    """
    fields = Fields()
    dataset = fields.parse("dataset", parse_dataset_id, request.dataset)
    subject = fields.parse("subject", parse_digest, request.subject)
    if request.version:
        fields.parse("version", parse_digest, request.version)
    if request.participant:
        fields.parse("participant", parse_address, request.participant)
    if request.request_id:
        fields.parse("request_id", parse_request_id, request.request_id)
    evaluator = _evaluator(fields, request.evaluator)
    fields.check()
    return NewRun(dataset, request.version, subject, evaluator, request.participant)


def _evaluator(fields: Fields, value: dataset_pb2.Evaluator.ValueType) -> Evaluator | None:
    if value == dataset_pb2.EVALUATOR_UNSPECIFIED:
        return None
    if value not in _EVALUATORS:
        fields.refuse("evaluator", f"there is no evaluator {value}; leave it unset, or name one")
    return _EVALUATORS.get(value)


def _metric(fields: Fields, value: dataset_pb2.Metric.ValueType) -> Metric | None:
    if value == dataset_pb2.METRIC_UNSPECIFIED:
        return None
    if value not in _METRICS:
        fields.refuse("metric", f"there is no metric {value}; leave it unset, or name one")
    return _METRICS.get(value)
