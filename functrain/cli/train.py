"""``functrain train``: train a configuration, resuming an earlier run."""

from __future__ import annotations

import contextlib
import os
import shlex
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

import functrain as ft
from functrain import config
from functrain.cli import output, seeds
from functrain.cli.run_directory import ConfigurationFile, to_write
from functrain.distributed.launch import processes
from functrain.errors import ConfigError, MissingExtraError
from functrain.errors.paths import absolute
from functrain.listeners import ProgressBar
from functrain.metrics.by_member import text
from functrain.populations.program import Population
from functrain.training import events
from functrain.training.agreement import world_of
from functrain.view import plain_text

# Exit codes of signals: 128 + the number of the signal.
_SIGNALS = {"SIGINT": 130, "SIGTERM": 143}


def train(source: str, overrides: list[str], console: Console) -> int:
    """Train, resume, or print that the run is complete."""
    console = _of_rank(console)
    loaded = config.load(source, overrides)
    set_torch_options(loaded.config)
    if loaded.config.seeds is not None:
        code = train_seeds(loaded, source, overrides, console)
    else:
        code = exit_code(train_one(loaded, console))
    if code in _SIGNALS.values():
        again = shlex.join(["functrain", "train", source, *overrides])
        console.print(f"interrupted and saved; continue with: {again}", soft_wrap=True)
    return code


def set_torch_options(options: config.RunConfig) -> None:
    """Set the options of a configuration that are the process's."""
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    if options.matmul_precision is not None:
        torch.set_float32_matmul_precision(options.matmul_precision)


def _of_rank(console: Console) -> Console:
    """Return the console, or a silent one on ranks other than 0, which would print the same."""
    rank = os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0"))
    return console if processes(os.environ) == 1 or rank == "0" else Console(quiet=True)


def train_one(
    loaded: config.Loaded, console: Console, listeners: Sequence[events.Listener] = ()
) -> ft.Run:
    """Train one run, with further listeners, and print its summary."""
    with config.importable(loaded):
        built = config.build(loaded.config)
        directory, shown = built.store.directory, Path(loaded.config.directory)
        world = world_of(built.program)
        leads = world.rank == 0
        with world.failing_together(), built.store.lock() if leads else contextlib.nullcontext():
            already = world.broadcast(built.store.steps() if leads else [])
            state = None if already else built.initial()
            own = [ConfigurationFile(directory, to_write(loaded, loaded.plain))] if leads else []
            run = fit(loaded.config, built, state, console, [*listeners, *own])
            plot = _plot(run, directory, loaded.config.name, console) if leads else None
        ended = run.reason not in ("interrupted", "nonfinite")
        if ended and already and run.new_steps:  # else the progress bar has printed it
            console.print(_span(run.state.counters.step, run.new_steps, already[-1]))
        of_seeds = isinstance(built.program, Population) and not built.program.values
        heads = (loaded.config.name, "")
        output.print_table(console, heads, summary(run, of_seeds), folded=("",))
        # Not in the table, which would truncate long paths.
        output.print_lines(console, f"run directory: {shown}")
        if plot is not None:
            output.print_lines(console, f"plot: {shown / plot.name}")
        if built.report is not None and ended:
            text = built.report(built.program, run.state)  # on every rank: it may evaluate
            console.print(text, highlight=False)
    return run


def train_seeds(loaded: config.Loaded, source: str, overrides: list[str], console: Console) -> int:
    """Train a run for each seed that is not complete, and print their summary."""
    if processes(os.environ) > 1:
        raise ConfigError("several processes train one seed at a time: give seed=...", "seeds")
    directory, until = absolute(loaded.config.directory), loaded.config.fit.until
    whole = ConfigurationFile(directory, to_write(loaded, loaded.composed))
    results, code = seeds.read(directory), 0
    for seed in loaded.config.seeds or ():
        if seeds.is_done(directory, results, seed, until):
            console.print(f"seed {seed}: done before ({directory / seeds.folder(seed)})")
            continue
        console.print(f"seed {seed}")
        one = config.load(source, seeds.overrides(overrides, directory, seed))
        run = train_one(one, console, [whole])
        if run.reason == "interrupted":
            return exit_code(run)
        if not seeds.is_known(results, seed, run):
            results[str(seed)] = seeds.result_of(seed, until, run)
            seeds.write(directory, results)
        code = max(code, exit_code(run))
    wanted = {str(seed): results[str(seed)] for seed in loaded.config.seeds or ()}
    seeds.print_spread(wanted, loaded.config.name, console)
    output.print_lines(console, f"runs: {loaded.config.directory}")
    return code


def fit(
    options: config.RunConfig,
    built: config.RunObjects,
    state: ft.TrainState | None,
    console: Console,
    listeners: Sequence[events.Listener] = (),
) -> ft.Run:
    """Train the objects of a configuration, with a bar on a console and further listeners."""
    with contextlib.closing(ProgressBar(console)) as progress:
        return ft.fit(
            built.program,
            built.data,
            state=state,
            listeners=[progress, *built.listeners, *listeners],
            **config.fit_arguments(options, built),
        )


def _span(end: int, made: int, newest: int) -> str:
    """Describe the steps made, given the newest checkpoint before them."""
    begin, again = end - made, min(end, newest)
    steps = f"made {made} steps, from the checkpoint of step {begin} on"
    return steps if again <= begin else f"{steps}; those up to {again} a second time"


def _plot(run: ft.Run, directory: Path, name: str, console: Console) -> Path | None:
    if not len(run.history):
        return None
    from functrain.plotting import curves

    path = directory / "curves.png"
    if not run.new_steps and path.exists():
        return path
    try:
        curves(run.history, path, title=f"{name}: {run.detail}")
    except MissingExtraError as error:
        console.print(f"no plot: {error}")
        return None
    return path


def summary(run: ft.Run, of_seeds: bool = False) -> list[tuple[str, str]]:
    """Summarize a run as the rows of a table.

    With ``of_seeds``, its members differ in seeds only, and their spread says something.
    """
    counters = run.state.counters
    rows = [
        ("ended", f"{run.reason} ({textwrap.shorten(run.detail, 60, placeholder=' ...')})"),
        ("steps, epochs, samples", f"{counters.step}, {counters.epoch}, {counters.samples:,}"),
        ("time trained", f"{run.seconds:.1f} s"),
    ]
    last = {name: run.history.last(name) for name in seeds.measured(run.history)}
    rows += [(f"last {name}", _shown(name, value, of_seeds)) for name, value in last.items()]
    if (member := run.best.get("member")) is not None:
        value, step = run.best["value"][member], run.best["step"][member]
        rows.append(("best", f"{plain_text.number(value)} at step {step}, member {member}"))
        rows.append(("members", f"{counters.skipped.numel()}"))
    elif run.best["step"] is not None:
        rows.append(("best", f"{plain_text.number(run.best['value'])} at step {run.best['step']}"))
    return rows


def _shown(name: str, value: Any, of_seeds: bool) -> str:
    if isinstance(value, list) and of_seeds:
        found = seeds.spread(value)
        mean, std = (plain_text.number(found[key]) for key in ("mean", "std"))
        return f"{mean} ± {std} over {found['runs']} seeds"
    if isinstance(value, list):
        return text(name, value).removeprefix(name).strip()
    return plain_text.number(value)


def exit_code(run: ft.Run) -> int:
    """Return 0, 3 for a nonfinite loss, or 128 + the number of the signal that ended the run."""
    if run.reason == "interrupted":
        return next((code for name, code in _SIGNALS.items() if name in run.detail), 130)
    return 3 if run.reason == "nonfinite" else 0
