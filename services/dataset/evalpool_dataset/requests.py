"""The dataset service's requests: their fields' rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from google.protobuf.json_format import MessageToDict

from evalpool.dataset.v1 import dataset_pb2
from evalpool.values import (
    Fields,
    InvalidValue,
    parse_address,
    parse_dataset_id,
    parse_digest,
    parse_integer,
    parse_request_id,
    parse_text,
    parse_transfer_id,
)
from evalpool_dataset.benchmarking import NewRun
from evalpool_dataset.datasets import NewDataset
from evalpool_dataset.digest import content_digest
from evalpool_dataset.loaders import Format
from evalpool_dataset.loading import NewFile
from evalpool_dataset.messages import EVALUATORS, METRICS
from evalpool_dataset.parameter_requests import (
    parse_exact_match,
    parse_few_shot,
    parse_filters,
    parse_judge,
    parse_reply,
    parse_retrieval,
    refuse_unused,
)
from evalpool_dataset.parts import Evaluator, Kind, Parameters
from evalpool_dataset.request_key import RequestKey
from evalpool_dataset.scoring import Metric
from evalpool_dataset.sweep import EVALUATIONS_A_SWEEP
from evalpool_runtime.errors import InvalidRequest, reasons

MAX_LABELS_BYTES = 8 * 1024 * 1024
MAX_WATCHED_RUNS = 1000

_EVALUATORS = {value: key for key, value in EVALUATORS.items()}
_METRICS = {value: key for key, value in METRICS.items()}
_FORMATS = {
    dataset_pb2.DATA_FORMAT_JSON_LINES: Format.JSON_LINES,
    dataset_pb2.DATA_FORMAT_JSON_ARRAY: Format.JSON_ARRAY,
    dataset_pb2.DATA_FORMAT_CSV: Format.CSV,
    dataset_pb2.DATA_FORMAT_PARQUET: Format.PARQUET,
}


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
    key = _request_key(fields, request)
    evaluator = _evaluator(fields, request.evaluator)
    metric = _metric(fields, request.metric)
    reply = parse_reply(fields, request.reply)
    filters = parse_filters(fields, request.filters)
    exact_match = parse_exact_match(fields, request.exact_match)
    judge, retrieval = parse_judge(fields, request.judge), None
    if request.HasField("retrieval"):
        retrieval = parse_retrieval(fields, request.retrieval)
    few_shot = parse_few_shot(fields, request.few_shot) if request.HasField("few_shot") else None
    if kind is not None:
        refuse_unused(fields, request, kind)
    fields.check()
    parameters = Parameters(
        evaluator=evaluator or kind.defaults.evaluator,
        metric=metric or kind.defaults.metric,
        system_prompt=system_prompt or kind.defaults.system_prompt,
        reply=reply,
        filters=filters,
        exact_match=exact_match,
        judge=judge if Evaluator.JUDGE in kind.evaluators else None,
        retrieval=retrieval,
        few_shot=few_shot,
    )
    if parameters.evaluator not in kind.evaluators:
        usable = " or ".join(sorted(kind.evaluators))
        fields.refuse("evaluator", f"{kind.name} cannot be used with it; give {usable}")
        raise InvalidRequest(fields.violations, reason=reasons.ERROR_REASON_EVALUATOR_MISMATCH)
    return NewDataset(dataset, kind, title or dataset, description, license_, parameters, key)


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
        fields.refuse(
            "options.labels",
            f"they have {len(options.labels)} bytes; give at most {MAX_LABELS_BYTES}, or put each "
            "label into its row",
        )
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
    version = _optional(fields, "version", parse_digest, request.version)
    participant = _optional(fields, "participant", parse_address, request.participant)
    key = _request_key(fields, request)
    evaluator = _evaluator(fields, request.evaluator)
    fields.check()
    return NewRun(dataset, version, subject, evaluator, participant, key)


def parse_get_dataset(request: dataset_pb2.GetDatasetRequest) -> tuple[str, str]:
    """The id of the dataset and the version's digest, empty for the newest.

    Raises:
        InvalidFields: With every violation.
    """
    fields = Fields()
    dataset = fields.parse("id", parse_dataset_id, request.id)
    version = _optional(fields, "version", parse_digest, request.version)
    fields.check()
    return dataset, version


def parse_get_subject(request: dataset_pb2.GetSubjectRequest) -> tuple[str, str, str]:
    """The id of the dataset, the version's digest, empty for the newest, and the subject's digest.

    Raises:
        InvalidFields: With every violation.
    """
    fields = Fields()
    dataset = fields.parse("dataset", parse_dataset_id, request.dataset)
    version = _optional(fields, "version", parse_digest, request.version)
    subject = fields.parse("subject", parse_digest, request.subject)
    fields.check()
    return dataset, version, subject


def parse_list_questions(request: dataset_pb2.ListQuestionsRequest) -> tuple[str, str, int]:
    """The id of the dataset, the version's digest, empty for the newest, and the page's size.

    Raises:
        InvalidFields: With every violation.
    """
    fields = Fields()
    dataset = fields.parse("dataset", parse_dataset_id, request.dataset)
    version = _optional(fields, "version", parse_digest, request.version)
    size = _page_size(fields, request.page_size)
    fields.check()
    return dataset, version, size


def parse_page_size(value: int) -> int:
    """The size of a page.

    Raises:
        InvalidFields: It is out of bounds.
    """
    fields = Fields()
    size = _page_size(fields, value)
    fields.check()
    return size


def parse_model_digest(digest: str) -> str:
    """The digest of a model.

    Raises:
        InvalidFields: It is none.
    """
    fields = Fields()
    fields.parse("digest", parse_digest, digest)
    fields.check()
    return digest


def parse_run(run: str) -> str:
    """The id of a run.

    Raises:
        InvalidFields: It is none.
    """
    fields = Fields()
    fields.parse("run", parse_transfer_id, run)
    fields.check()
    return run


def parse_evaluate(request: dataset_pb2.EvaluateRequest) -> tuple[str, int]:
    """The id of a run, empty for all, and how many evaluations at most.

    Raises:
        InvalidFields: With every violation.
    """
    fields = Fields()
    run = _optional(fields, "run", parse_transfer_id, request.run)
    limit = fields.attempt(
        "limit",
        lambda: parse_integer(
            request.limit, at_least=1, at_most=EVALUATIONS_A_SWEEP, default=EVALUATIONS_A_SWEEP
        ),
    )
    fields.check()
    return run, limit


def parse_watch_scores(request: dataset_pb2.WatchScoresRequest) -> tuple[list[str], int]:
    """The ids of the runs, none for all, and the cursor.

    Raises:
        InvalidFields: With every violation.
    """
    fields = Fields()
    if len(request.runs) > MAX_WATCHED_RUNS:
        fields.refuse(
            "runs",
            f"there are {len(request.runs)}; name at most {MAX_WATCHED_RUNS}, or none for all",
        )
    runs = [
        fields.parse(f"runs[{place}]", parse_transfer_id, run)
        for place, run in enumerate(request.runs[:MAX_WATCHED_RUNS])
    ]
    cursor = fields.attempt(
        "after_cursor", lambda: parse_integer(request.after_cursor, at_least=0, at_most=2**62)
    )
    fields.check()
    return runs, cursor


def parse_list_results(request: dataset_pb2.ListResultsRequest) -> tuple[str, int]:
    """The id of the run and the question after which to begin.

    Raises:
        InvalidFields: With every violation.
    """
    fields = Fields()
    run = fields.parse("run", parse_transfer_id, request.run)
    after = fields.attempt(
        "after_question",
        lambda: parse_integer(request.after_question, at_least=0, at_most=2**31 - 1),
    )
    fields.check()
    return run, after


def _optional(fields: Fields, field: str, parser: Callable[[str], str], text: str) -> str:
    return fields.parse(field, parser, text) if text else ""


def _request_key(
    fields: Fields, request: dataset_pb2.CreateDatasetRequest | dataset_pb2.BenchmarkRequest
) -> RequestKey | None:
    name = _optional(fields, "request_id", parse_request_id, request.request_id)
    if not name:
        return None
    content = MessageToDict(request, preserving_proto_field_name=True)
    del content["request_id"]
    return RequestKey(name, content_digest({request.DESCRIPTOR.full_name: content}))


def _page_size(fields: Fields, value: int) -> int:
    return fields.attempt(
        "page_size", lambda: parse_integer(value, at_least=1, at_most=1000, default=100)
    )


def _not_one_of(value: int, names: Iterable[str]) -> str:
    return f"there is none with the number {value}; leave it unset, or name {' or '.join(names)}"


def _evaluator(fields: Fields, value: dataset_pb2.Evaluator.ValueType) -> Evaluator | None:
    if value == dataset_pb2.EVALUATOR_UNSPECIFIED:
        return None
    if value not in _EVALUATORS:
        fields.refuse("evaluator", _not_one_of(value, _EVALUATORS.values()))
    return _EVALUATORS.get(value)


def _metric(fields: Fields, value: dataset_pb2.Metric.ValueType) -> Metric | None:
    if value == dataset_pb2.METRIC_UNSPECIFIED:
        return None
    if value not in _METRICS:
        fields.refuse("metric", _not_one_of(value, _METRICS.values()))
    return _METRICS.get(value)
