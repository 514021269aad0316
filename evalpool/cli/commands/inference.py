"""`evalpool infer`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from evalpool.cli import standard_input
from evalpool.cli.answers import shown
from evalpool.cli.app import app, run
from evalpool.cli.failure import Failure
from evalpool.cli.options import DEFAULT_WALLET, Output, Wallet, client_of
from evalpool.cli.output import Format, errors, print_json, print_table, printable
from evalpool.cli.payment import Hold, Multiplier, Pay, one_way_to_pay, paying
from evalpool.cli.sampling import (
    FrequencyPenalty,
    Grammar,
    Logprobs,
    MaxTokens,
    MinP,
    Model,
    PresencePenalty,
    RepeatPenalty,
    Seed,
    Stop,
    Temperature,
    TopK,
    TopP,
)
from evalpool.cli.subjects import model_digest
from evalpool.client import Client
from evalpool.inference.v1 import inference_pb2


@app.command()
def infer(
    prompt: Annotated[str, typer.Argument(help='The text to go on from; "-" for standard input.')],
    model: Model = "",
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    repeat_penalty: RepeatPenalty = None,
    frequency_penalty: FrequencyPenalty = None,
    presence_penalty: PresencePenalty = None,
    seed: Seed = None,
    stop: Stop = None,
    grammar: Grammar = None,
    logprobs: Logprobs = None,
    as_chat: Annotated[
        bool, typer.Option("--chat", help="Take the prompt for a user's turn.")
    ] = False,
    chat_template: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="A file with the Jinja template for that turn, in place of the model's own.",
        ),
    ] = None,
    pay: Pay = "",
    hold: Hold = "",
    multiplier: Multiplier = "",
    output: Output = Format.TABLE,
    wallet: Wallet = DEFAULT_WALLET,
) -> None:
    """Continue a text on the herd, token by token."""
    text = standard_input.whole() if prompt == "-" else prompt
    one_way_to_pay(pay, hold)
    template = "" if chat_template is None else chat_template.read_text(encoding="utf-8")
    sampling = inference_pb2.Sampling(
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repeat_penalty=repeat_penalty,
        frequency_penalty=frequency_penalty,
        presence_penalty=presence_penalty,
        seed=seed,
        grammar="" if grammar is None else grammar.read_text(encoding="utf-8"),
        stop=stop,
        logprobs=logprobs,
    )

    async def work() -> None:
        async with client_of(wallet) as client:
            request = inference_pb2.InferRequest(
                model=await _reference(client, model),
                sampling=sampling,
                multiplier=multiplier,
            )
            if as_chat or chat_template is not None:
                request.chat.messages.add(role="user", content=text)
                request.chat.template = template
            else:
                request.prompt = text
            pieces, missing, complete = [], "", inference_pb2.InferComplete()
            places: list[inference_pb2.TokenLogprobs] | None = None if logprobs is None else []
            async with paying(client, pay, hold) as request.hold:
                try:
                    async for response in client.router.Infer(request):
                        if response.HasField("chunk"):
                            pieces.append(response.chunk.text)
                            if places is not None:
                                places.extend(response.chunk.logprobs)
                            if output is Format.TABLE:
                                print(shown(response.chunk.text), end="", flush=True)
                        elif response.HasField("progress"):
                            if missing != response.progress.stage and output is Format.TABLE:
                                errors.print(printable(response.progress.stage))
                            missing = response.progress.stage
                        else:
                            complete = response.complete
                except BaseException:
                    if pieces and output is Format.TABLE:
                        # What is said of a text that breaks off has a line of its own.
                        print()
                    raise
                _finish("".join(pieces), complete, output, request.hold, places)

    run(work())


async def _reference(client: Client, model: str) -> inference_pb2.ModelReference | None:
    if not model:
        return None
    return inference_pb2.ModelReference(digest=await model_digest(client, model))


def _finish(
    text: str,
    complete: inference_pb2.InferComplete,
    output: Format,
    hold: str,
    places: list[inference_pb2.TokenLogprobs] | None = None,
) -> None:
    if output is Format.JSON:
        told: dict[str, object] = {"text": text}
        if places is not None:
            told["logprobs"] = places
        if hold:
            told["hold"] = hold
        print_json({**told, "complete": complete})
        return
    print()
    if places is not None:
        print_table(
            ["token", ">logprob", "likeliest"],
            [
                (
                    json.dumps(place.chosen.text, ensure_ascii=False),
                    f"{place.chosen.logprob:.3f}",
                    "  ".join(
                        f"{json.dumps(token.text, ensure_ascii=False)} {token.logprob:.3f}"
                        for token in place.likeliest
                    ),
                )
                for place in places
            ],
        )
    if complete.finish_reason == inference_pb2.FINISH_REASON_CANCELLED:
        raise Failure("the generation was cancelled; try again with a longer deadline")
    usage = complete.usage
    paid = f", hold {hold}" if hold else ""
    errors.print(
        f"{usage.prompt_tokens} prompt tokens, {usage.completion_tokens} generated{paid}",
        style="dim",
    )
