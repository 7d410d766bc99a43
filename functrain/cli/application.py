"""Commands and exit codes. Invalid input prints one line and exits with code 2."""

from __future__ import annotations

import sys
import traceback
import warnings
from pathlib import Path
from typing import Annotated

import typer

from functrain.cli import torchrun_errors
from functrain.cli.config import app as configuration
from functrain.cli.output import console, show_warning
from functrain.errors import FunctrainError, ListenerError

app = typer.Typer(
    help="Train PyTorch models as pure functions of a state.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(configuration, name="config")
Directory = Annotated[Path, typer.Argument(help="a run directory")]
Place = Annotated[Path, typer.Argument(help="a run or a checkpoint, or RUN@STEP")]
At = Annotated[Path, typer.Argument(help="a run, RUN@STEP, RUN@best, or a checkpoint")]
Step = Annotated[int | None, typer.Option(help="the checkpoint of this step")]
Best = Annotated[bool, typer.Option("--best", help="the best checkpoint")]
Monitor = Annotated[str | None, typer.Option(help="the metric that determines the best")]
Mode = Annotated[str | None, typer.Option(help="whether its min or max is best")]
AsJson = Annotated[bool, typer.Option("--json", help="print one JSON document instead")]


@app.command()
def train(
    source: Annotated[str, typer.Argument(help="digits, chargpt, or a YAML file")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value ...")] = None,
) -> None:
    """Train, or resume a run of the same command."""
    from functrain.cli.train import train

    raise typer.Exit(train(source, overrides or [], console()))


@app.command()
def ls(
    directory: Place,
    tree: Annotated[
        bool, typer.Option("--tree", help="the runs below a directory as a tree of forks")
    ] = False,
    monitor: Monitor = None,
    mode: Mode = None,
    as_json: AsJson = False,
) -> None:
    """List the checkpoints of a run, or a tree of runs."""
    from functrain.cli.listing import list_checkpoints
    from functrain.cli.run_tree import show_run_tree

    (show_run_tree if tree else list_checkpoints)(directory, console(), as_json, monitor, mode)


@app.command()
def show(
    path: Place,
    only: Annotated[list[str] | None, typer.Option(help="leaves, such as 'train.params.*'")] = None,
    stats: Annotated[
        bool, typer.Option("--stats", help="read the tensors: min, mean, NaN, ...")
    ] = False,
    step: Step = None,
    best: Best = False,
    monitor: Monitor = None,
    mode: Mode = None,
    as_json: AsJson = False,
) -> None:
    """Show the tree of a checkpoint, for a run the newest one."""
    from functrain.cli.checkpoint_argument import open_checkpoint
    from functrain.cli.show import show

    show(open_checkpoint(path, step, best, monitor, mode), console(), as_json, only or (), stats)


@app.command()
def diff(
    first: At,
    second: At,
    replay: Annotated[
        bool, typer.Option("--replay", help="rerun both, to find the first leaf that differs")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare two runs or checkpoints; exit with code 1 if they differ."""
    from functrain.cli.diff import diff

    raise typer.Exit(0 if diff(first, second, console(), as_json, replay) else 1)


@app.command()
def verify(
    paths: Annotated[list[Path], typer.Argument(help="runs or checkpoints")],
    as_json: AsJson = False,
) -> None:
    """Read every byte of checkpoints; exit with code 1 if any is damaged."""
    from functrain.cli.verify import verify

    raise typer.Exit(0 if verify(paths, console(), as_json) else 1)


@app.command()
def export(
    path: Place,
    out: Annotated[Path, typer.Argument(help="the file to write")],
    what: Annotated[str, typer.Option(help="params, ema or all")] = "params",
    format: Annotated[str | None, typer.Option(help="safetensors or state_dict")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace OUT")] = False,
    step: Step = None,
    best: Best = False,
    monitor: Monitor = None,
    mode: Mode = None,
    as_json: AsJson = False,
) -> None:
    """Write weights as a safetensors file or a torch state_dict."""
    from functrain.cli.checkpoint_argument import open_checkpoint
    from functrain.cli.export import write

    target = open_checkpoint(path, step, best, monitor, mode)
    write(target, out, console(), as_json, what, format, overwrite)


@app.command()
def prune(
    directory: Directory,
    keep_last: Annotated[int, typer.Option(min=1, help="number of newest checkpoints to keep")],
    keep_best: Annotated[int, typer.Option(min=0, help="number of best checkpoints to keep")] = 1,
    keep_every_steps: Annotated[
        int | None, typer.Option(min=1, help="keep multiples of this step")
    ] = None,
    monitor: Monitor = None,
    mode: Mode = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="only print what would be removed")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Remove the checkpoints of a run that no rule keeps."""
    from functrain.cli.prune import prune

    rules = {"keep_last": keep_last, "keep_best": keep_best, "keep_every_steps": keep_every_steps}
    prune(directory, console(), as_json, dry_run, rules, monitor, mode)


@app.command()
def plot(
    runs: Annotated[list[Path], typer.Argument(help="runs, or directories of runs")],
    metric: Annotated[list[str] | None, typer.Option(help="metrics, such as 'eval/*'")] = None,
    out: Annotated[Path | None, typer.Option(help="FILE.png, .svg, .pdf or .html")] = None,
    x: Annotated[str, typer.Option(help="step, epoch, samples or time")] = "step",
    smooth: Annotated[
        float, typer.Option(help="fraction of the steps to smooth over; 0 disables")
    ] = 0.05,
    log: Annotated[bool | None, typer.Option("--log/--linear", help="scale of the values")] = None,
    theme: Annotated[str, typer.Option(help="light or dark paper of a picture")] = "light",
) -> None:
    """Draw the curves of one or several runs."""
    from functrain.cli.plot import plot
    from functrain.plotting import Options

    plot(runs, out, Options(metric or (), x, smooth, log, theme), console())


@app.command()
def report(
    directory: Directory,
    out: Annotated[Path | None, typer.Option(help="FILE.html, by default RUN/report.html")] = None,
) -> None:
    """Write a page about a run: its status, curves, recipe and checkpoints."""
    from functrain.cli.plot import report

    report(directory, out, console())


@app.command()
def search(
    source: Annotated[str, typer.Argument(help="digits_search, or a YAML file")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value ...")] = None,
    report: Annotated[bool, typer.Option("--report", help="only print the results so far")] = False,
) -> None:
    """Search for hyperparameters, or resume a search of the same command."""
    from functrain.cli.search import run

    raise typer.Exit(run(source, overrides or [], console(), report))


@app.command()
def generate(
    path: At,
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
    weights: Annotated[str | None, typer.Option(help="params or ema")] = None,
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


def main() -> None:
    """Run the command line; errors of functrain print one line without a traceback."""
    warnings.showwarning = show_warning
    try:
        app()
    except FunctrainError as error:
        if isinstance(error, ListenerError):  # an error in the user's code needs its traceback
            torchrun_errors.record(traceback.format_exc())
            raise
        # An OSError has the message without "[Errno 2]" in strerror.
        text = f"functrain: {getattr(error, 'strerror', None) or error or type(error).__name__}"
        torchrun_errors.record(text)
        if not torchrun_errors.is_printed_elsewhere(error):
            print(text, file=sys.stderr)
        sys.exit(2)
    except Exception:
        torchrun_errors.record(traceback.format_exc())
        raise
