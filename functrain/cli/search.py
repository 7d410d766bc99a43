"""``functrain search``: run trials of a configuration, and print the results."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from rich.console import Console
from rich.table import Table

import functrain as ft
from functrain import config
from functrain.cli import output
from functrain.cli.run_directory import to_write, write_or_check
from functrain.config import SearchConfig
from functrain.errors import MissingExtraError
from functrain.errors.optional import require
from functrain.listeners import ProgressBar
from functrain.search import report, search
from functrain.search.loop import direction_of
from functrain.search.space import Space
from functrain.search.study import open_study
from functrain.training.events import Listener
from functrain.view import plain_text

_MOST_ROWS = 10
# Exit codes by reason; SIGTERM has its own.
_CODES = {"failures": 1, "interrupted": 130}
_SIGTERM = 143
# The search sets these keys for each trial.
_OWN = ("seed", "directory", "name")


def run(source: str, overrides: list[str], console: Console, only_report: bool) -> int:
    """Start or resume a search, or only report.

    Args:
        source: name of an example or path of a YAML file.
        overrides: ``key=value`` of that file.
        console: where to print.
        only_report: run no trials.

    Returns:
        The exit code.

    Raises:
        FunctrainError: a file is invalid, or the directory holds another search.
    """
    options = config.load_search(source, overrides)
    logging = require("optuna.logging", "search")
    logging.set_verbosity(logging.WARNING)
    if only_report:
        direction = direction_of(options.metric, options.direction)
        study = open_study(Path(options.directory), direction, None, new=False)
        _print(study, options, console)
        return 0
    base = _load(options, options.overrides)
    if base.config.threads is not None:
        torch.set_num_threads(base.config.threads)
    if base.config.matmul_precision is not None:
        torch.set_float32_matmul_precision(base.config.matmul_precision)
    with config.importable(base):
        config.build(_load(options, _example(options)).config)  # finds mistakes early
        found = search(
            Trial(options, console),
            options.space,
            settings=dict(_flat(base.plain, "base")),
            say=lambda line: console.print(line, soft_wrap=True, highlight=False, markup=False),
            **_arguments(options),
        )
    _print(found.study, options, console)
    again = shlex.join(["functrain", "search", source, *overrides])
    if found.reason in ("interrupted", "timeout", "failures"):
        console.print(f"{found.reason}: {found.detail}; continue with: {again}", soft_wrap=True)
    return _SIGTERM if "SIGTERM" in found.detail else _CODES.get(found.reason, 0)


@attrs.frozen
class Trial:
    """Runs the base with the parameters of a trial, like ``functrain train``."""

    options: SearchConfig
    console: Console

    def __call__(
        self, params: dict[str, Any], seed: int, directory: Path, listeners: list[Listener]
    ) -> ft.Run:
        """Run one seed of a trial."""
        own = {"seed": seed, "directory": str(directory), "name": directory.parent.name}
        changed = [*self.options.overrides, *_assigned({**params, **own})]
        loaded = _load(self.options, changed)
        built = config.build(loaded.config)
        with contextlib.ExitStack() as stack:
            stack.enter_context(built.store.lock())
            progress = stack.enter_context(contextlib.closing(self._progress()))
            state = None if built.store.steps() else built.initial()
            write_or_check(directory, to_write(loaded, loaded.plain))
            return ft.fit(
                built.program,
                built.data,
                state=state,
                listeners=[progress, *built.listeners, *listeners],
                **config.fit_arguments(loaded.config, built),
            )

    def _progress(self) -> ProgressBar:
        """Return a bar, silent without a terminal: listener states depend on its position."""
        return ProgressBar(self.console if self.console.is_terminal else Console(quiet=True))


def _load(options: SearchConfig, overrides: list[str]) -> config.Loaded:
    return config.load(options.base, overrides)


def _example(options: SearchConfig) -> list[str]:
    params = {name: parameter.example for name, parameter in options.space.items()}
    return [*options.overrides, *_assigned(params)]


def _assigned(values: Mapping[str, Any]) -> list[str]:
    """Format overrides; JSON is YAML."""
    return [f"{name}={json.dumps(value)}" for name, value in values.items()]


def _arguments(options: SearchConfig) -> dict[str, Any]:
    named = attrs.asdict(options, recurse=False)
    return {k: v for k, v in named.items() if k not in ("base", "overrides", "space", "name")}


def _flat(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield the values of the base by dotted key, without those that the search sets."""
    if not isinstance(node, dict):
        yield path, node
        return
    for key, child in node.items():
        if path != "base" or key not in _OWN:
            yield from _flat(child, f"{path}.{key}")


# -- the report ---------------------------------------------------------------------------------


def _print(study: Any, options: SearchConfig, console: Console) -> None:
    best = report.ranked(study)
    console.print()
    if best:
        output.print_table(console, _table(best[:_MOST_ROWS], options), spare=("time",))
    found = report.counts(study)
    console.print(
        f"trials: {', '.join(f'{count} {state}' for state, count in found.items()) or 'none'}",
        highlight=False,
    )
    shares = report.importances(study)
    if shares:
        listed = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
        console.print(f"importance: {listed}", soft_wrap=True, highlight=False)
    for path in _plots(study, options, console):
        console.print(f"plot: {path}", soft_wrap=True, highlight=False)
    if best:
        chosen = _chosen(best[0].params, options.space)
        train = ["functrain", "train", options.base, *options.overrides, *_assigned(chosen)]
        console.print(f"train the best with: {shlex.join(train)}", soft_wrap=True, highlight=False)


def _table(best: list[report.Row], options: SearchConfig) -> Table:
    names = list(options.space)
    heads = ("trial", options.metric, *names, "time")
    table = output.table(*heads, right=("trial", "time"), folded=tuple(names))
    for row in best:
        spread = "" if row.std is None else f" ± {row.std:.2g}"
        cells = [output.cell(plain_text.number(row.params.get(name, "-"))) for name in names]
        style = "bold" if row is best[0] else ""
        value = output.cell(f"{plain_text.number(row.value)}{spread}", style)
        table.add_row(str(row.number), value, *cells, f"{row.seconds:.1f} s")
    return table


def _plots(study: Any, options: SearchConfig, console: Console) -> list[Path]:
    from functrain.search.plots import draw

    try:
        return draw(study, Path(options.directory), options.metric)
    except MissingExtraError as error:
        console.print(f"no plots: {error}")
        return []


def _chosen(params: dict[str, Any], space: Space) -> dict[str, Any]:
    """Convert stored parameters to values of the configuration."""
    return {name: parameter.read(params[name]) for name, parameter in space.items()}
