"""`evalpool chat`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from evalpool.cli import standard_input
from evalpool.cli.answers import Answer, Screen
from evalpool.cli.app import app, run
from evalpool.cli.chat_session import ChatSession
from evalpool.cli.commands.search import TopK
from evalpool.cli.failure import Failure
from evalpool.cli.options import DEFAULT_WALLET, Output, Wallet
from evalpool.cli.output import Format
from evalpool.cli.payment import Hold, Multiplier, Pay, one_way_to_pay
from evalpool.cli.sampling import MaxTokens, Model, Seed, Temperature
from evalpool.cli.terminal_chat import TerminalChat
from evalpool.client.conversation import SYSTEM, Conversation
from evalpool.inference.v1 import inference_pb2


@app.command()
def chat(
    question: Annotated[
        str | None,
        typer.Argument(
            help='One question; "-" for standard input. Default: a conversation, ended with '
            "ctrl-D; piped, a line a question."
        ),
    ] = None,
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
    top_k: TopK = 4,
    system: Annotated[
        str, typer.Option(help="The system prompt of a conversation. Default: to answer shortly.")
    ] = "",
    model: Model = "",
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    seed: Seed = None,
    history: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="Keep the lines that are typed in this file."),
    ] = None,
    pay: Pay = "",
    hold: Hold = "",
    multiplier: Multiplier = "",
    output: Output = Format.TABLE,
    wallet: Wallet = DEFAULT_WALLET,
) -> None:
    """Ask the herd's chat model."""
    one_way_to_pay(pay, hold)
    if hold and question is None:
        raise Failure("--hold pays for one question; give the question, or --pay")
    if system and question is not None:
        raise Failure("--system is for a conversation; leave the question out, or the option")
    conversation = Conversation(system or SYSTEM) if question is None else None
    session = ChatSession(
        screen=Screen(output, in_lines=conversation is not None),
        wallet=wallet,
        sampling=inference_pb2.Sampling(max_tokens=max_tokens, temperature=temperature, seed=seed),
        model=model,
        context=context,
        documents=documents,
        top_k=top_k,
        pay=pay,
        hold=hold,
        multiplier=multiplier,
        conversation=conversation,
    )
    if conversation is None:
        run(session.answer(Answer(standard_input.whole() if question == "-" else question or "")))
    elif sys.stdin.isatty():
        TerminalChat(session, conversation).hold(history)
    else:
        for line in standard_input.lines():
            run(session.answer(Answer(line)))
