"""`evalpool infer` and `evalpool chat`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from evalpool.cli.app import app, run
from evalpool.cli.commands.search import TopK as MostDocuments
from evalpool.cli.commands.search import as_context, nearest, show_used
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
from evalpool.embedding.v1 import embedding_pb2
from evalpool.inference.v1 import inference_pb2
from evalpool.router.v1 import router_pb2

Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="A digest, a name in the catalogue, or a GGUF file that was pushed. Default: the "
        "herd's choice.",
    ),
]


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
    text = sys.stdin.read() if prompt == "-" else prompt
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
            pieces, missing = [], ""
            places: list[inference_pb2.TokenLogprobs] | None = None if logprobs is None else []
            async with paying(client, pay, hold) as request.hold:
                async for response in client.router.Infer(request):
                    if response.HasField("chunk"):
                        pieces.append(response.chunk.text)
                        if places is not None:
                            places.extend(response.chunk.logprobs)
                        if output is Format.TABLE:
                            print(response.chunk.text, end="", flush=True)
                    elif response.HasField("progress"):
                        if missing != response.progress.stage and output is Format.TABLE:
                            errors.print(printable(response.progress.stage))
                        missing = response.progress.stage
                    else:
                        _finish("".join(pieces), response.complete, output, request.hold, places)

    run(work())


@app.command()
def chat(
    question: Annotated[
        str, typer.Argument(help="One question. Default: a conversation, ended with ctrl-D.")
    ] = "",
    context: Annotated[str, typer.Option(help="What the answer is to be based on.")] = "",
    documents: Annotated[
        str,
        typer.Option(
            "--dataset-hash",
            "-d",
            help="A document set that answers are to be based on: its name or digest. What is used "
            "of it is shown.",
        ),
    ] = "",
    top_k: MostDocuments = 4,
    model: Model = "",
    max_tokens: MaxTokens = None,
    pay: Pay = "",
    hold: Hold = "",
    multiplier: Multiplier = "",
    output: Output = Format.TABLE,
    wallet: Wallet = DEFAULT_WALLET,
) -> None:
    """Ask the herd's chat model."""
    one_way_to_pay(pay, hold)
    if hold and not question:
        raise Failure("--hold pays for one question; give the question, or --pay")

    async def ask(client: Client, text: str) -> None:
        used = await nearest(client, documents, text, top_k) if documents else []
        if output is Format.TABLE:
            show_used(used)
        request = router_pb2.ChatRequest(
            question=text,
            context=as_context(context, used),
            model=await _reference(client, model),
            sampling=inference_pb2.Sampling(max_tokens=max_tokens),
            multiplier=multiplier,
        )
        pieces = []
        async with paying(client, pay, hold) as request.hold:
            async for response in client.router.Chat(request):
                if response.HasField("chunk"):
                    pieces.append(response.chunk.text)
                    if output is Format.TABLE:
                        print(response.chunk.text, end="", flush=True)
                else:
                    answer = "".join(pieces)
                    _finish(answer, response.complete, output, request.hold, used=used)

    async def work() -> None:
        async with client_of(wallet) as client:
            if question:
                await ask(client, question)
                return
            for text in _questions():
                await ask(client, text)

    run(work())


def _questions() -> Iterator[str]:
    """What is typed, or piped, a line at a time; empty lines are passed over."""
    interactive = sys.stdin.isatty()
    while True:
        if interactive:
            # Not on standard output, which is for the answers.
            errors.print("you: ", style="bold", end="")
        try:
            line = input().strip()
        except EOFError:
            return
        if line:
            yield line


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
    used: list[embedding_pb2.SearchResult] | None = None,
) -> None:
    if output is Format.JSON:
        told: dict[str, object] = {"text": text}
        if used:
            told["used"] = used
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
