"""``functrain train``: from a configuration to a finished run, or one that can be continued."""

from __future__ import annotations

import contextlib
import shlex
import textwrap
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

import functrain as ft
from functrain import config
from functrain.cli.run_directory import settle
from functrain.errors import LogError, MissingExtraError
from functrain.history import FILE_NAME, History, read
from functrain.listeners import ProgressBar

# Exit codes by reason; 128 + the signal's number where one ended the run.
_SIGNALS = {"SIGINT": 130, "SIGTERM": 143}


def train(source: str, overrides: list[str], console: Console) -> int:
    """Train, or continue, or say that there is nothing left to do.

    Args:
        source: name of an example or path of a YAML file.
        overrides: ``key=value``.
        console: where to print.

    Returns:
        The exit code.

    Raises:
        FunctrainError: the configuration or the run directory is wrong; nothing was written.
    """
    loaded = config.load(source, overrides)
    if loaded.config.threads is not None:
        torch.set_num_threads(loaded.config.threads)
    with config.importable(loaded):
        built = config.build(loaded.config)
        directory = Path(loaded.config.directory)
        with built.store.lock():
            already = built.store.steps()
            settle(directory, loaded.plain)
            run = _fit(loaded.config, built, console)
            plot = _plot(run, directory, loaded.config.name, console)
        ended = run.reason not in ("interrupted", "nonfinite")
        if ended and already and run.state.counters.step == already[-1]:
            console.print("the run is done; nothing was left to do")
        console.print(summary(run, loaded.config.name))
        # Not in the table, which would cut long paths.
        console.print(f"run directory: {directory}", soft_wrap=True, highlight=False)
        if plot is not None:
            console.print(f"plot: {plot}", soft_wrap=True, highlight=False)
        if built.report is not None and ended:
            console.print(built.report(built.program, run.state), markup=False, highlight=False)
    if run.reason == "interrupted":
        again = shlex.join(["functrain", "train", source, *overrides])
        console.print(f"interrupted and saved; continue with: {again}", soft_wrap=True)
    return _exit_code(run)


def _fit(options: config.RunConfig, built: config.Built, console: Console) -> ft.Run:
    with contextlib.closing(ProgressBar(console)) as progress:
        return ft.fit(
            built.program,
            built.data,
            until=options.fit.until,
            seed=options.seed,
            eval_data=built.eval_data,
            eval_every=options.fit.eval_every,
            save_every=options.fit.save_every,
            directory=built.store,
            early_stop=options.early_stop,
            listeners=[progress, *built.listeners],
        )


def _plot(run: ft.Run, directory: Path, name: str, console: Console) -> Path | None:
    if not len(run.history):
        return None
    from functrain.plotting import curves

    path = directory / "curves.png"
    try:
        curves(run.history, path, title=f"{name}: {run.detail}")
    except MissingExtraError as error:
        console.print(f"no plot: {error}")
        return None
    return path


def summary(run: ft.Run, name: str) -> Table:
    """The end of a run as a table."""
    counters = run.state.counters
    table = Table(title=name, show_header=False, title_justify="left")
    rows = [
        ("ended", f"{run.reason} ({textwrap.shorten(run.detail, 60, placeholder=' ...')})"),
        ("steps, epochs, samples", f"{counters.step}, {counters.epoch}, {counters.samples:,}"),
        ("time trained", f"{run.seconds:.1f} s"),
    ]
    names = run.history.names()
    measured = [n for n in names if "/" in n and not n.startswith("epoch/")]
    rows += [(f"last {n}", f"{run.history[n][-1]:.4f}") for n in measured]
    if run.best["step"] is not None:
        rows.append(("best", f"{run.best['value']:.4f} at step {run.best['step']}"))
    for label, value in rows:
        table.add_row(label, value)
    return table


def _exit_code(run: ft.Run) -> int:
    if run.reason == "interrupted":
        return next((code for name, code in _SIGNALS.items() if name in run.detail), 130)
    return 3 if run.reason == "nonfinite" else 0


def redraw(directory: Path) -> Path:
    """Draw the curves of a run directory again."""
    from functrain.plotting import curves

    path, log = directory / "curves.png", directory / FILE_NAME
    rows = read(log) if log.exists() else []
    if not rows:
        raise LogError(f"there is nothing to draw: {log} has no steps")
    curves(History(rows), path, title=directory.name)
    return path
