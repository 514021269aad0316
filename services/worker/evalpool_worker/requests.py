"""Requests of inference: from the contract's messages to the engine's values, with their rules."""

from __future__ import annotations

from dataclasses import dataclass

from evalpool.inference.v1 import inference_pb2
from evalpool.values import Fields, parse_digest, parse_integer, parse_text
from evalpool_worker.engine.base import (
    MOST_LOGPROBS,
    ChatMessage,
    ChoiceQuestion,
    Prompt,
    SamplingParameters,
    TemplatedChat,
)

MAX_QUESTIONS = 1000
MAX_CHOICES = 64
MAX_REFERENCE = 128
MAX_PROMPT_CHARACTERS = 1_000_000
MAX_TEMPLATE_BYTES = 64 * 1024
MAX_GRAMMAR_BYTES = 64 * 1024
MAX_STOPS = 16
MAX_STOP_BYTES = 256
ROLES = ("system", "user", "assistant")

# The contract's defaults.
TEMPERATURE = 0.0
TOP_K = 40
TOP_P = 0.95
MIN_P = 0.05


@dataclass(frozen=True, slots=True)
class WantedModel:
    """The model that a request names.

    Attributes:
        digest: Its SHA-256; empty for the one that is loaded.
        name: Its name, for people.
        sources: Where it can be had.
    """

    digest: str
    name: str
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Generation:
    """A request to go on with a text."""

    model: WantedModel
    prompt: Prompt
    parameters: SamplingParameters
    reference: str


@dataclass(frozen=True, slots=True)
class Scoring:
    """A request to score choices."""

    model: WantedModel
    questions: tuple[ChoiceQuestion, ...]
    reference: str


def parse_infer(
    request: inference_pb2.InferRequest, *, max_tokens: int, system_prompt: str
) -> Generation:
    """Read an InferRequest.

    Args:
        request: The message.
        max_tokens: The worker's setting, for requests that name none.
        system_prompt: The worker's setting, for conversations that have none.

    Raises:
        InvalidFields: With every violation.
    """
    fields = Fields()
    model = _model(fields, request.model, required=False)
    reference = fields.parse("reference", _reference, request.reference)
    parameters = _sampling(fields, request.sampling, max_tokens)
    prompt: Prompt = ""
    match request.WhichOneof("input"):
        case "prompt":
            prompt = fields.parse(
                "prompt",
                lambda text: parse_text(text, at_least=1, at_most=MAX_PROMPT_CHARACTERS),
                request.prompt,
            )
        case "chat":
            own = fields.parse(
                "system_prompt",
                lambda text: parse_text(text, at_most=MAX_PROMPT_CHARACTERS),
                request.system_prompt if request.HasField("system_prompt") else system_prompt,
            )
            prompt = _conversation(fields, request.chat, own)
        case _:
            fields.refuse("prompt", "there is neither a prompt nor a chat; give one of them")
    fields.check()
    return Generation(model, prompt, parameters, reference)


def parse_score_choices(request: inference_pb2.ScoreChoicesRequest) -> Scoring:
    """Read a ScoreChoicesRequest.

    Raises:
        InvalidFields: With every violation.
    """
    fields = Fields()
    model = _model(fields, request.model, required=True)
    reference = fields.parse("reference", _reference, request.reference)
    fields.attempt(
        "questions",
        lambda: parse_integer(len(request.questions), at_least=1, at_most=MAX_QUESTIONS),
    )
    seen: set[str] = set()
    for place, question in enumerate(request.questions):
        at = f"questions[{place}]"
        fields.parse(f"{at}.id", lambda t: parse_text(t, at_least=1, at_most=64), question.id)
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
    questions = tuple(
        ChoiceQuestion(q.id, q.prompt, tuple(q.choices), tuple(q.prompts))
        for q in request.questions
    )
    return Scoring(model, questions, reference)


def _model(
    fields: Fields, reference: inference_pb2.ModelReference, *, required: bool
) -> WantedModel:
    if reference.digest or required:
        fields.parse("model.digest", parse_digest, reference.digest)
    return WantedModel(reference.digest, reference.name, tuple(reference.sources))


def _reference(text: str) -> str:
    return parse_text(text, at_most=MAX_REFERENCE)


def _conversation(fields: Fields, chat: inference_pb2.Chat, system_prompt: str) -> Prompt:
    messages = [ChatMessage(message.role, message.content) for message in chat.messages]
    if not messages:
        fields.refuse("chat.messages", "there is none; give at least one")
    for place, message in enumerate(messages):
        if message.role not in ROLES:
            fields.refuse(
                f"chat.messages[{place}].role",
                f'"{message.role}" is no role; give one of {", ".join(ROLES)}',
            )
        if len(message.content) > MAX_PROMPT_CHARACTERS:
            fields.refuse(
                f"chat.messages[{place}].content",
                f"it has more than {MAX_PROMPT_CHARACTERS} characters; shorten it",
            )
    if len(chat.template.encode()) > MAX_TEMPLATE_BYTES:
        fields.refuse("chat.template", f"it is longer than {MAX_TEMPLATE_BYTES} bytes; shorten it")
    if system_prompt and all(message.role != "system" for message in messages):
        messages.insert(0, ChatMessage("system", system_prompt))
    return TemplatedChat(tuple(messages), chat.template) if chat.template else tuple(messages)


def _sampling(
    fields: Fields, sampling: inference_pb2.Sampling, max_tokens: int
) -> SamplingParameters:
    def ranged(
        field: str, default: float, low: float, high: float, *, above: bool = False
    ) -> float:
        if not sampling.HasField(field):  # type: ignore[arg-type]
            return default
        value = float(getattr(sampling, field))
        if not (low < value if above else low <= value) or not value <= high:
            bound = "above " if above else ""
            fields.refuse(f"sampling.{field}", f"it is {value:g}; give {bound}{low:g} to {high:g}")
        return value

    if len(sampling.grammar.encode()) > MAX_GRAMMAR_BYTES:
        fields.refuse("sampling.grammar", f"it is longer than {MAX_GRAMMAR_BYTES} bytes")
    if len(sampling.stop) > MAX_STOPS:
        fields.refuse("sampling.stop", f"there are {len(sampling.stop)}; give at most {MAX_STOPS}")
    for place, stop in enumerate(sampling.stop):
        if not 1 <= len(stop.encode()) <= MAX_STOP_BYTES:
            fields.refuse(f"sampling.stop[{place}]", f"give 1 to {MAX_STOP_BYTES} bytes")
    return SamplingParameters(
        max_tokens=int(ranged("max_tokens", max_tokens, 1, 131_072)),
        temperature=ranged("temperature", TEMPERATURE, 0, 2),
        top_k=int(ranged("top_k", TOP_K, 0, 1_000_000)),
        top_p=ranged("top_p", TOP_P, 0, 1, above=True),
        min_p=ranged("min_p", MIN_P, 0, 1),
        repeat_penalty=ranged("repeat_penalty", 1.0, 0, 100, above=True),
        frequency_penalty=ranged("frequency_penalty", 0.0, -2, 2),
        presence_penalty=ranged("presence_penalty", 0.0, -2, 2),
        # llama.cpp takes the highest 32-bit number to mean a seed of its own choice.
        seed=int(ranged("seed", 0, 0, 2**32 - 2)),
        grammar=sampling.grammar,
        stop=tuple(sampling.stop),
        logprobs=(
            int(ranged("logprobs", 0, 0, MOST_LOGPROBS)) if sampling.HasField("logprobs") else None
        ),
    )
