"""`evalpool dataset create`: a dataset without questions, and how they are to be asked."""

from __future__ import annotations

from typing import Annotated
from uuid import uuid4

import typer

from evalpool.cli.app import run
from evalpool.cli.asking import FormName, Ignored, exact_match_of, filters_of, reply_of
from evalpool.cli.commands.dataset import (
    EVALUATORS,
    METRICS,
    DatasetId,
    Evaluator,
    EvaluatorName,
    MetricName,
    group,
    print_dataset,
)
from evalpool.cli.options import DEFAULT_WALLET, Output, RequestId, Wallet, client_of
from evalpool.cli.output import Format
from evalpool.cli.subjects import model_digest
from evalpool.client import Client
from evalpool.dataset.v1 import dataset_pb2


@group.command()
def create(
    dataset: DatasetId,
    kind: Annotated[
        str,
        typer.Option(
            help="siqa, multiple_choice, continuation, ending, generation, open_ended, or one that "
            "is installed beside the dataset service."
        ),
    ] = "siqa",
    title: Annotated[str, typer.Option(help="For people.")] = "",
    description: Annotated[str, typer.Option(help="For people.")] = "",
    evaluator: Evaluator = EvaluatorName.DEFAULT,
    metric: Annotated[
        MetricName,
        typer.Option(
            help="What makes a choice the answer, under loglikelihood: the largest sum of "
            "log-probabilities, or the largest sum a character or a byte."
        ),
    ] = MetricName.ACC,
    license_: Annotated[str, typer.Option("--license", help="Of the questions.")] = "",
    system_prompt: Annotated[str, typer.Option(help="Default: the kind's.")] = "",
    form: Annotated[
        FormName | None,
        typer.Option(
            help="Continue the prompt as it stands, or answer it as a turn of a chat. Default: "
            "plain for generation, chat for the others.",
        ),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Tokens at most. Default: 4 for a letter, 256 for generation, 40 for open_ended.",
        ),
    ] = None,
    stop: Annotated[
        list[str] | None,
        typer.Option(
            help="The reply ends before this; several times for any of several.",
        ),
    ] = None,
    temperature: Annotated[str, typer.Option(help="0 to 2. Default: 0, the likeliest.")] = "",
    seed: Annotated[
        int | None,
        typer.Option(min=0, max=2**32 - 1, help="Of the tokens' choice."),
    ] = None,
    filter_: Annotated[
        list[str] | None,
        typer.Option(
            "--filter",
            metavar="NAME=PATTERN",
            help="For generation: take from the reply what a regular expression finds first; "
            "several times for several ways, of which the first decides. Default: the reply as it "
            "is.",
        ),
    ] = None,
    ignore: Annotated[
        list[Ignored] | None,
        typer.Option(help="For generation: what counts for nothing; several times for several."),
    ] = None,
    judge: Annotated[
        str,
        typer.Option(
            help="For open_ended: the model that grades, a name in the catalogue or a digest. "
            "Default: the herd's judge."
        ),
    ] = "",
    judge_seed: Annotated[
        int | None,
        typer.Option(min=0, max=2**32 - 1, help="Of the judge's tokens."),
    ] = None,
    retrieval: Annotated[
        bool,
        typer.Option(
            "--retrieval",
            help="For open_ended: document sets are entered, and one model answers with what they "
            "yield.",
        ),
    ] = False,
    answer_by: Annotated[
        str,
        typer.Option(
            help="With --retrieval, the model that answers. Default: the herd's chat model.",
        ),
    ] = "",
    top_k: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=100,
            help="With --retrieval, documents a question. Default: 4.",
        ),
    ] = None,
    request_id: RequestId = "",
    output: Output = Format.TABLE,
    wallet: Wallet = DEFAULT_WALLET,
) -> None:
    """Make a dataset without questions; load them with `evalpool dataset load`."""
    if (answer_by or top_k) and not retrieval:
        raise typer.BadParameter("it goes with --retrieval", param_hint="--answer-by, --top-k")
    request = dataset_pb2.CreateDatasetRequest(
        id=dataset,
        kind=kind,
        title=title,
        description=description,
        evaluator=EVALUATORS[evaluator],
        metric=METRICS[metric],
        system_prompt=system_prompt,
        license=license_,
        request_id=request_id or f"create-{uuid4()}",
        reply=reply_of(form, max_tokens, stop or [], temperature, seed),
        filters=filters_of(filter_ or []),
        exact_match=exact_match_of(ignore or []),
    )

    async def work() -> dataset_pb2.Dataset:
        async with client_of(wallet) as client:
            if judge or judge_seed is not None:
                request.judge.model = await _digest(client, judge)
                request.judge.seed = judge_seed or 0
            if retrieval:
                request.retrieval.SetInParent()
                request.retrieval.model = await _digest(client, answer_by)
                request.retrieval.top_k = top_k or 0
            return (await client.dataset.CreateDataset(request)).dataset

    print_dataset(run(work()), output)


async def _digest(client: Client, model: str) -> str:
    return await model_digest(client, model) if model else ""
