"""`evalpool judge`: a grade from 0 to 10."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from evalpool.cli import standard_input
from evalpool.cli.app import app, run
from evalpool.cli.options import DEFAULT_WALLET, Output, Wallet, client_of
from evalpool.cli.output import Format, errors, print_fields, print_json
from evalpool.cli.payment import Hold, Multiplier, Pay, one_way_to_pay, paying
from evalpool.cli.sampling import Model, Seed
from evalpool.cli.subjects import model_digest
from evalpool.client import Client
from evalpool.inference.v1 import inference_pb2
from evalpool.router.v1 import router_pb2

LONGEST_SECONDS = 3600.0
"""Longer than a router lets a grade take, so that it is the router who says why there is none."""

TELL_SECONDS = 2.0
"""How often to tell what a grade waits for."""


@app.command()
def judge(
    question: Annotated[str, typer.Argument(help="What was asked.")],
    expected: Annotated[str, typer.Argument(help="The answer that is expected.")],
    response: Annotated[
        str | None,
        typer.Argument(
            help='The answer to grade; "-" for standard input. Default: the herd\'s own.'
        ),
    ] = None,
    context: Annotated[str, typer.Option(help="What the answer was based on.")] = "",
    model: Model = "",
    seed: Seed = None,
    pay: Pay = "",
    hold: Hold = "",
    multiplier: Multiplier = "",
    output: Output = Format.TABLE,
    wallet: Wallet = DEFAULT_WALLET,
) -> None:
    """Have the herd grade an answer from 0 to 10."""
    one_way_to_pay(pay, hold)
    request = router_pb2.EvaluateRequest(
        question=question,
        expected_response=expected,
        response=standard_input.whole() if response == "-" else response,
        context=context,
        seed=seed or 0,
        multiplier=multiplier,
    )

    async def work() -> router_pb2.EvaluateResponse:
        async with client_of(wallet) as client:
            if model:
                digest = await model_digest(client, model)
                request.model.CopyFrom(inference_pb2.ModelReference(digest=digest))
            async with paying(client, pay, hold) as request.hold:
                return await _graded(client, request, quiet=output is Format.JSON)

    graded = run(work())
    if output is Format.JSON:
        print_json({"hold": request.hold, "grade": graded} if request.hold else graded)
        return
    usage = graded.usage
    print_fields(
        {
            "grade": f"{graded.score} of 10",
            "answer": graded.response,
            "judge": graded.provenance.model_digest,
            "seed": graded.seed,
            "prompt": graded.prompt_digest,
            "engine": graded.provenance.engine_build,
            "worker": graded.provenance.worker,
            "tokens": f"{usage.prompt_tokens} read, {usage.completion_tokens} written",
            "hold": request.hold,
        }
    )


async def _graded(
    client: Client, request: router_pb2.EvaluateRequest, *, quiet: bool
) -> router_pb2.EvaluateResponse:
    """A grade; while it is awaited, how the herd stands, which Evaluate itself cannot tell."""
    call = asyncio.ensure_future(client.router.Evaluate(request, timeout=LONGEST_SECONDS))
    told = ""
    try:
        while True:
            done, _ = await asyncio.wait({call}, timeout=TELL_SECONDS)
            if done:
                return call.result()
            herd = await client.router.GetStatistics(router_pb2.GetStatisticsRequest())
            standing = _standing(herd)
            if standing != told and not quiet:
                errors.print(standing, style="dim")
            told = standing
    finally:
        call.cancel()


def _standing(herd: router_pb2.GetStatisticsResponse) -> str:
    if not herd.workers:
        return "waiting for a judge: the herd has no worker"
    told = (
        f"waiting for a judge: {herd.queued} questions and requests wait, "
        f"{herd.free_slots} of {herd.slots} slots are free"
    )
    # Who waits beside a free slot waits for a worker that may do it.
    return f"{told}; is a worker admitted for judging?" if herd.queued and herd.free_slots else told
