"""Which model, and how tokens are chosen: the options of commands that generate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="A digest, a name in the catalogue, or a GGUF file that was pushed. Default: the "
        "herd's choice.",
    ),
]
MaxTokens = Annotated[int | None, typer.Option(min=1, help="Tokens at most.")]
Temperature = Annotated[float | None, typer.Option(min=0.0, max=2.0, help="0: the likeliest.")]
TopK = Annotated[int | None, typer.Option(min=0, help="Only so many of the likeliest; 0: all.")]
TopP = Annotated[
    float | None,
    typer.Option(
        min=0.0, max=1.0, help="Only the likeliest that together have this probability, above 0."
    ),
]
MinP = Annotated[
    float | None,
    typer.Option(min=0.0, max=1.0, help="Only those with this share of the likeliest's."),
]
RepeatPenalty = Annotated[
    float | None, typer.Option(min=0.0, help="On tokens of the last 64, above 0; 1: none.")
]
FrequencyPenalty = Annotated[
    float | None, typer.Option(min=-2.0, max=2.0, help="On a token, for each time that it came.")
]
PresencePenalty = Annotated[
    float | None, typer.Option(min=-2.0, max=2.0, help="On tokens that came.")
]
Seed = Annotated[int | None, typer.Option(min=0, help="Same seed and settings, same text.")]
Stop = Annotated[
    list[str] | None,
    typer.Option(help="The text ends before this; several times for any of several."),
]
Grammar = Annotated[
    Path | None,
    typer.Option(
        exists=True, dir_okay=False, help="A file with the GBNF grammar that the text follows."
    ),
]
Logprobs = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=20,
        help="Tell how likely the model held each token, and so many of the likeliest beside it.",
    ),
]
