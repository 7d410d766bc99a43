"""Commands that look at runs; each imports its part when it is called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from functrain.cli.options import AsJson, Best, Directory, Mode, Monitor, Place, Step, path, words
from functrain.cli.output import console, print_lines


def ls(
    directory: Annotated[
        Path, typer.Argument(help="a run, a checkpoint, or a folder of runs", parser=path)
    ] = Path(),
    tree: Annotated[
        bool, typer.Option("--tree", help="of a run too: what was forked and set aside")
    ] = False,
    monitor: Monitor = None,
    mode: Mode = None,
    as_json: AsJson = False,
) -> None:
    """List the checkpoints of a run, or the runs below a folder as a tree of forks."""
    from functrain.cli.listing import list_checkpoints
    from functrain.cli.run_tree import is_folder_of_runs, show_run_tree

    show = show_run_tree if tree or is_folder_of_runs(directory) else list_checkpoints
    show(directory, console(), as_json, monitor, mode)


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


def diff(
    first: Place,
    second: Place,
    replay: Annotated[
        bool, typer.Option("--replay", help="rerun both, to find the first leaf that differs")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare two runs or checkpoints; exit with code 1 if they differ."""
    from functrain.cli.diff import diff

    raise typer.Exit(0 if diff(first, second, console(), as_json, replay) else 1)


def verify(
    paths: Annotated[list[Path], typer.Argument(help="runs or checkpoints", parser=path)],
    as_json: AsJson = False,
) -> None:
    """Read every byte of checkpoints; exit with code 1 if any is damaged."""
    from functrain.cli.verify import verify

    raise typer.Exit(0 if verify(paths, console(), as_json) else 1)


def export(
    path: Place,
    out: Annotated[Path, typer.Argument(help="the file to write", parser=path)],
    what: Annotated[
        str,
        typer.Option(
            help="params, trained, ema or all",
            autocompletion=words("params", "trained", "ema", "all"),
        ),
    ] = "params",
    format: Annotated[
        str | None,
        typer.Option(
            help="safetensors or state_dict", autocompletion=words("safetensors", "state_dict")
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace OUT")] = False,
    program: Annotated[str | None, typer.Option(help="the name of one of several programs")] = None,
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
    write(target, out, console(), as_json, what, format, overwrite, program)


def member(
    path: Place,
    out: Annotated[Path, typer.Argument(help="the checkpoint to write", parser=path)],
    index: Annotated[int | None, typer.Option(help="the member; by default the best one")] = None,
    step: Step = None,
    best: Best = False,
    monitor: Monitor = None,
    mode: Mode = None,
) -> None:
    """Write one member of a population as a checkpoint of its own."""
    from functrain.cli.checkpoint_argument import open_checkpoint
    from functrain.cli.export import write_member

    write_member(open_checkpoint(path, step, best, monitor, mode), index, out, console())


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


def plot(
    runs: Annotated[list[Path], typer.Argument(help="runs, or directories of runs", parser=path)],
    metric: Annotated[list[str] | None, typer.Option(help="metrics, such as 'eval/*'")] = None,
    out: Annotated[
        Path | None, typer.Option(help="FILE.png, .svg, .pdf or .html", parser=path)
    ] = None,
    x: Annotated[
        str,
        typer.Option(
            help="step, epoch, samples or time",
            autocompletion=words("step", "epoch", "samples", "time"),
        ),
    ] = "step",
    smooth: Annotated[
        float, typer.Option(help="fraction of the steps to smooth over; 0 disables")
    ] = 0.05,
    log: Annotated[bool | None, typer.Option("--log/--linear", help="scale of the values")] = None,
    theme: Annotated[
        str,
        typer.Option(
            help="light or dark paper of a picture", autocompletion=words("light", "dark")
        ),
    ] = "light",
) -> None:
    """Draw the curves of one or several runs."""
    from functrain.cli.plot import plot
    from functrain.plotting import Options

    plot(runs, out, Options(metric or (), x, smooth, log, theme), console())


def report(
    directory: Directory,
    out: Annotated[
        Path | None,
        typer.Option(help="FILE.html, by default RUN/report.html", parser=path),
    ] = None,
) -> None:
    """Write a page about a run: its status, curves, recipe and checkpoints."""
    from functrain.view import report

    print_lines(console(), report(directory, out))
