"""The rules of requests, and how much work they are."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from evalpool.inference.v1 import inference_pb2
from evalpool.router.v1 import router_pb2
from evalpool.values import (
    Fields,
    InvalidValue,
    parse_address,
    parse_digest,
    parse_integer,
    parse_text,
    parse_transfer_id,
)
from evalpool_router.membership import Candidate
from evalpool_router.repository import CHUNK_BYTES
from evalpool_router.scheduler import Kind
from evalpool_router.uploads import Announcement

MAX_QUESTIONS = 1000
MAX_CHOICES = 64
MAX_REFERENCE = 128
MAX_NAME = 128
MAX_BUILD = 1024
MAX_TEXT = 64 * 1024
MAX_SLOTS = 1024
MAX_LOADED_MODELS = 1024
MAX_ONLY_MODELS = 64
MAX_LOGPROBS = 20
MAX_TOKENS = 131_072
MAX_SEED = 2**32 - 2
"""The number above it is llama.cpp's for a seed of its own choice."""

_NO_OFFER = Fraction(1)
_MULTIPLIER = re.compile(r"[1-9][0-9]{0,8}(\.[0-9]{1,9})?")
_ENDPOINT = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):([0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class Terms:
    """What every request for inference says beside its content.

    Attributes:
        model: The digest or the name of the model; empty for the default.
        field: The field that names it.
        reference: What the caller gets back in every message.
        multiplier: What the caller offers to go first.
        hold: The hold that pays; empty for none.
    """

    model: str
    field: str
    reference: str
    multiplier: Fraction
    hold: str


def parse_infer(request: inference_pb2.InferRequest) -> Terms:
    """Check an InferRequest; the worker checks the rest of its sampling.

    Raises:
        InvalidFields: With every violation.
    """
    fields = Fields()
    terms = _terms(fields, request.model, request.reference, request.multiplier, request.hold)
    match request.WhichOneof("input"):
        case "prompt":
            fields.parse("prompt", _not_empty, request.prompt)
        case "chat":
            if not request.chat.messages:
                fields.refuse("chat.messages", "there is none; give at least one")
            if len(request.chat.template.encode()) > MAX_TEXT:
                fields.refuse("chat.template", f"it is longer than {MAX_TEXT} bytes; shorten it")
        case _:
            fields.refuse("prompt", "there is neither a prompt nor a chat; give one of them")
    _check_sampling(fields, request.sampling)
    fields.check()
    return terms


def parse_chat(request: router_pb2.ChatRequest) -> Terms:
    """Check a ChatRequest.

    Raises:
        InvalidFields: With every violation.
    """
    fields = Fields()
    terms = _terms(fields, request.model, request.reference, request.multiplier, request.hold)
    fields.parse("question", _text, request.question)
    fields.parse("context", _text_or_none, request.context)
    _check_sampling(fields, request.sampling)
    fields.check()
    return terms


def parse_evaluate(request: router_pb2.EvaluateRequest) -> Terms:
    """Check an EvaluateRequest.

    Raises:
        InvalidFields: With every violation.
    """
    fields = Fields()
    terms = _terms(fields, request.model, request.reference, request.multiplier, request.hold)
    fields.parse("question", _text, request.question)
    fields.parse("expected_response", _text, request.expected_response)
    fields.parse("context", _text_or_none, request.context)
    fields.parse("response", _text_or_none, request.response)
    fields.attempt("seed", lambda: parse_integer(request.seed, at_least=0, at_most=MAX_SEED))
    fields.check()
    return terms


def parse_score_choices(request: inference_pb2.ScoreChoicesRequest) -> Terms:
    """Check a ScoreChoicesRequest.

    Raises:
        InvalidFields: With every violation.
    """
    fields = Fields()
    terms = _terms(fields, request.model, request.reference, request.multiplier, request.hold)
    if not request.model.digest:
        fields.refuse("model.digest", "it is empty; name the model by its digest")
    fields.attempt(
        "questions",
        lambda: parse_integer(len(request.questions), at_least=1, at_most=MAX_QUESTIONS),
    )
    seen: set[str] = set()
    for place, question in enumerate(request.questions):
        at = f"questions[{place}]"
        fields.parse(f"{at}.id", _question_id, question.id)
        if question.id in seen:
            fields.refuse(f"{at}.id", f'"{question.id}" comes twice; give each question its own')
        seen.add(question.id)
        if not 1 <= len(question.choices) <= MAX_CHOICES:
            fields.refuse(
                f"{at}.choices", f"there are {len(question.choices)}; give 1 to {MAX_CHOICES}"
            )
        if not all(question.choices):
            fields.refuse(f"{at}.choices", "a choice is empty; give each a text")
        if question.prompts and (question.prompt or len(question.prompts) != len(question.choices)):
            fields.refuse(
                f"{at}.prompts", "they are not one a choice, in place of prompt; give one for each"
            )
    fields.check()
    return terms


def parse_kinds(numbers: Iterable[int]) -> frozenset[Kind]:
    """Kinds of work from the contract's numbers.

    Raises:
        InvalidValue: A number is none.
    """
    kinds = set()
    for number in numbers:
        try:
            kinds.add(Kind(number))
        except ValueError as error:
            raise InvalidValue(
                f"{number} is no kind of work; give EVALUATE, CHAT or JUDGE"
            ) from error
    return frozenset(kinds)


def parse_candidate(request: router_pb2.RegisterWorkerRequest, address: str) -> Candidate:
    """Check a RegisterWorkerRequest.

    Raises:
        InvalidFields: With every violation.
    """
    fields = Fields()
    endpoint = fields.parse("endpoint", parse_endpoint, request.endpoint)
    kinds = fields.attempt("kinds", lambda: parse_kinds(request.kinds))
    if not request.kinds:
        fields.refuse("kinds", "there is none; give at least one")
    slots = fields.attempt(
        "slots", lambda: parse_integer(request.slots, at_least=1, at_most=MAX_SLOTS)
    )
    if request.memory_bytes < 0:
        fields.refuse("memory_bytes", f"it is {request.memory_bytes}; give 0 or more")
    build = fields.parse(
        "engine_build", lambda t: parse_text(t, at_least=1, at_most=MAX_BUILD), request.engine_build
    )
    models = parse_loaded(fields, request.models)
    only_models = _digests(fields, "only_models", request.only_models, MAX_ONLY_MODELS)
    instance = fields.parse(
        "instance", lambda t: parse_text(t, at_least=1, at_most=64), request.instance
    )
    fields.check()
    return Candidate(
        address=address,
        endpoint=endpoint,
        kinds=kinds,
        slots=slots,
        memory_bytes=request.memory_bytes,
        engine_build=build,
        models=models,
        instance=instance,
        only_models=only_models,
    )


def parse_loaded(fields: Fields, digests: Iterable[str]) -> frozenset[str]:
    """Check the digests of the models that a worker has loaded."""
    return _digests(fields, "models", digests, MAX_LOADED_MODELS)


def parse_worker(text: str) -> str:
    """Check a field `worker`.

    Raises:
        InvalidFields: It is no address.
    """
    fields = Fields()
    address = fields.parse("worker", parse_address, text)
    fields.check()
    return address


def parse_model_digest(text: str) -> str:
    """Check a field `digest`.

    Raises:
        InvalidFields: It is no digest.
    """
    fields = Fields()
    digest = fields.parse("digest", parse_digest, text)
    fields.check()
    return digest


def parse_model_name(text: str) -> str:
    """Check a field `model`: a digest or a name.

    Raises:
        InvalidFields: It is empty, or too long.
    """
    fields = Fields()
    name = fields.parse("model", lambda t: parse_text(t, at_least=1, at_most=MAX_NAME), text)
    fields.check()
    return name


def parse_page_size(size: int) -> int:
    """Check a field `page_size`.

    Raises:
        InvalidFields: It is out of bounds.
    """
    fields = Fields()
    parsed = fields.attempt(
        "page_size", lambda: parse_integer(size, at_least=1, at_most=1000, default=100)
    )
    fields.check()
    return parsed


def parse_upload_header(message: router_pb2.UploadModelRequest | None) -> Announcement:
    """Check the first message of an upload.

    Raises:
        InvalidFields: With every violation.
    """
    fields = Fields()
    if message is None or message.WhichOneof("content") != "header":
        fields.refuse("header", "the first message has none; send the header first")
        fields.check()
        raise AssertionError("unreachable")
    header = message.header
    digest = fields.parse("header.digest", parse_digest, header.digest)
    if header.size_bytes < 1:
        fields.refuse("header.size_bytes", f"it is {header.size_bytes}; give the file's size")
    name = fields.parse("header.name", _model_name, header.name)
    if not 0 <= header.offset <= max(header.size_bytes, 0):
        fields.refuse("header.offset", f"it is {header.offset}; give what GetUpload tells")
    fields.check()
    return Announcement(digest, header.size_bytes, name, header.offset)


def parse_upload_chunk(message: router_pb2.UploadModelRequest) -> bytes:
    """Check a further message of an upload.

    Raises:
        InvalidFields: It is no chunk, or one that is too large.
    """
    fields = Fields()
    if message.WhichOneof("content") != "chunk":
        fields.refuse("chunk", "a message after the first has none; send the file's bytes")
    if len(message.chunk) > CHUNK_BYTES:
        fields.refuse("chunk", f"it has {len(message.chunk)} bytes; send at most {CHUNK_BYTES}")
    fields.check()
    return message.chunk


def parse_endpoint(text: str) -> str:
    """Check where a server can be reached.

    Raises:
        InvalidValue: It is no host:port.
    """
    found = _ENDPOINT.fullmatch(text)
    if found is None or not 1 <= int(found[1]) <= 65_535:
        raise InvalidValue('it is no host:port; give one such as "127.0.0.1:50055"')
    return text


def _digests(fields: Fields, name: str, digests: Iterable[str], most: int) -> frozenset[str]:
    found = [
        fields.parse(f"{name}[{place}]", parse_digest, digest)
        for place, digest in enumerate(digests)
    ]
    if len(found) > most:
        fields.refuse(name, f"there are {len(found)}; give at most {most}")
    return frozenset(found)


def _terms(
    fields: Fields,
    model: inference_pb2.ModelReference,
    reference: str,
    multiplier: str,
    hold: str,
) -> Terms:
    if model.digest:
        fields.parse("model.digest", parse_digest, model.digest)
    fields.parse("model.name", lambda t: parse_text(t, at_most=MAX_NAME), model.name)
    return Terms(
        model=model.digest or model.name,
        field="model.digest" if model.digest else "model.name" if model.name else "model",
        reference=fields.parse(
            "reference", lambda t: parse_text(t, at_most=MAX_REFERENCE), reference
        ),
        multiplier=fields.parse("multiplier", _multiplier, multiplier) if multiplier else _NO_OFFER,
        hold=fields.parse("hold", parse_transfer_id, hold) if hold else "",
    )


def _check_sampling(fields: Fields, sampling: inference_pb2.Sampling) -> None:
    # What it costs, and the size of what comes back, grow with these.
    fields.attempt(
        "sampling.logprobs",
        lambda: parse_integer(sampling.logprobs, at_least=0, at_most=MAX_LOGPROBS),
    )
    if sampling.HasField("max_tokens"):
        fields.attempt(
            "sampling.max_tokens",
            lambda: parse_integer(sampling.max_tokens, at_least=1, at_most=MAX_TOKENS),
        )


def _multiplier(text: str) -> Fraction:
    if not _MULTIPLIER.fullmatch(text):
        raise InvalidValue(
            'it is no multiplier; give a decimal number of at least 1, such as "1.5"'
        )
    return Fraction(text)


def _question_id(text: str) -> str:
    return parse_text(text, at_least=1, at_most=64)


def _not_empty(text: str) -> str:
    if not text:
        raise InvalidValue("it is empty; give a text")
    return text


def _text(text: str) -> str:
    if not 1 <= len(text.encode()) <= MAX_TEXT:
        raise InvalidValue(f"it has {len(text.encode())} bytes; give 1 to {MAX_TEXT}")
    return text


def _text_or_none(text: str) -> str:
    if len(text.encode()) > MAX_TEXT:
        raise InvalidValue(f"it has {len(text.encode())} bytes; give at most {MAX_TEXT}, or none")
    return text


def _model_name(text: str) -> str:
    parse_text(text, at_least=1, at_most=MAX_NAME)
    if not text.isprintable():
        raise InvalidValue("it has characters that cannot be printed; remove them")
    return text
