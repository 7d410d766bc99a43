"""Commands that train or use a model; each imports its part when it is called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from functrain.cli.options import (
    AsJson,
    Best,
    Mode,
    Monitor,
    Overrides,
    Place,
    Source,
    Step,
    path,
    sources,
    words,
)
from functrain.cli.output import console


def train(source: Source, overrides: Overrides = None) -> None:
    """Train, or resume a run of the same command."""
    from functrain.cli.train import train

    raise typer.Exit(train(source, overrides or [], console()))


def compile(source: Source, overrides: Overrides = None) -> None:
    """Compile the step of a run, so that training starts at once."""
    from functrain.cli.compile import compile

    compile(source, overrides or [], console())


def init(
    directory: Annotated[Path, typer.Argument(help="the folder to make", parser=path)],
) -> None:
    """Make a project: a configuration, a model with its data, and tests of both."""
    from functrain.cli.init import init

    init(directory, console())


def search(
    source: Annotated[
        str, typer.Argument(help="digits_search, or a YAML file", autocompletion=sources)
    ],
    overrides: Overrides = None,
    report: Annotated[bool, typer.Option("--report", help="only print the results so far")] = False,
) -> None:
    """Search for hyperparameters, or resume a search of the same command."""
    from functrain.cli.search import run

    raise typer.Exit(run(source, overrides or [], console(), report))


def generate(
    path: Place,
    prompt: Annotated[str, typer.Argument(help="the beginning of the text")],
    length: Annotated[int, typer.Option(help="number of characters or tokens to add")] = 300,
    temperature: Annotated[float | None, typer.Option(help="0 takes the most likely token")] = None,
    top_k: Annotated[
        int | None, typer.Option(help="draw from this many tokens; 0 draws from all")
    ] = None,
    top_p: Annotated[
        float | None, typer.Option(help="draw from tokens with this total probability")
    ] = None,
    min_p: Annotated[
        float | None, typer.Option(help="minimum probability relative to the best")
    ] = None,
    repetition_penalty: Annotated[float | None, typer.Option(help="above 1 repeats less")] = None,
    no_repeat_ngram_size: Annotated[
        int | None, typer.Option(help="never repeat n-grams of this size")
    ] = None,
    stop: Annotated[list[str] | None, typer.Option(help="a text at which to stop")] = None,
    count: Annotated[int, typer.Option(help="number of texts, with consecutive seeds")] = 1,
    seed: Annotated[int | None, typer.Option(help="seed of the random stream")] = None,
    weights: Annotated[
        str | None, typer.Option(help="params or ema", autocompletion=words("params", "ema"))
    ] = None,
    step: Step = None,
    best: Best = False,
    monitor: Monitor = None,
    mode: Mode = None,
    as_json: AsJson = False,
) -> None:
    """Continue a prompt with a run, by default with its newest checkpoint."""
    from functrain.cli.checkpoint_argument import open_checkpoint
    from functrain.cli.generate import generate

    options = {
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "no_repeat_ngram_size": no_repeat_ngram_size,
        "seed": seed,
        "weights": weights,
    }
    target = open_checkpoint(path, step, best, monitor, mode)
    generate(target, prompt, length, options, count=count, stop=stop or (), json=as_json)
