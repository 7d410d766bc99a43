"""``functrain search``: run trials of a configuration, and print the results."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from rich.console import Console

import functrain as ft
from functrain import config
from functrain.cli import output
from functrain.cli.run_directory import ConfigurationFile, to_write
from functrain.cli.train import fit, set_torch_options
from functrain.config import SearchConfig
from functrain.errors import ConfigError, MissingExtraError
from functrain.errors.optional import require
from functrain.errors.paths import absolute
from functrain.search import report, search
from functrain.search.arguments import find_direction
from functrain.search.manifest import read_settings
from functrain.search.objective import describe_fit
from functrain.search.study import open_study
from functrain.training.events import Listener
from functrain.view import plain_text

_MOST_ROWS = 10
# Exit codes by reason; SIGTERM has its own.
_CODES = {"failures": 1, "interrupted": 130}
_SIGTERM = 143


def run(source: str, overrides: list[str], console: Console, only_report: bool) -> int:
    """Start or resume a search, or only report."""
    options = config.load_search(source, overrides)
    logging = require("optuna.logging", "search")
    logging.set_verbosity(logging.WARNING)
    directory = absolute(options.directory)
    if only_report:
        direction = find_direction(options.metric, options.direction)
        _print(open_study(directory, direction, None, new=False), options, directory, console)
        return 0
    for name in set(OWN_KEYS) & options.space.keys():
        raise ConfigError("the search sets it for each trial; leave it out", f"space.{name}")
    base = load_trial(options, {})
    set_torch_options(base.config)
    if base.config.population is not None:
        raise ConfigError("the base of a search is one run; leave it out", "base.population")
    with config.importable(base):
        example = {name: parameter.example for name, parameter in options.space.items()}
        built = config.build(load_trial(options, example).config)  # finds mistakes early
        seeds = options.seeds or base.config.seeds or [base.config.seed]
        named = {**attrs.asdict(options, recurse=False), "seeds": seeds, "directory": directory}
        shared = describe_fit({"data": built.data, "eval_data": built.eval_data})
        found = search(
            Trial(options, console, shared, _roots(built)),
            settings=dict(_flat(base.plain, "base")),
            say=lambda line: output.print_lines(console, line),
            **{key: named[key] for key in named if key not in ("base", "overrides", "name")},
        )
    _print(found.study, options, directory, console)
    again = shlex.join(["functrain", "search", source, *overrides])
    if found.reason in ("interrupted", "timeout", "failures"):
        console.print(f"{found.reason}: {found.detail}; continue with: {again}", soft_wrap=True)
    return _SIGTERM if "SIGTERM" in found.detail else _CODES.get(found.reason, 0)


def _roots(built: config.RunObjects) -> dict[str, Any]:
    """Return the functions of a run whose code all trials must share."""
    leaves = built.program.leaves()
    recipes = {f"{prefix}recipe": leaf.recipe for prefix, leaf in leaves.items()}
    return {**recipes, "data": built.data, "eval_data": built.eval_data}


def _flat(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield the values of the base by dotted key, without those that the search sets."""
    if not isinstance(node, dict):
        yield path, node
        return
    for key, child in node.items():
        if path != "base" or key not in OWN_KEYS:
            yield from _flat(child, f"{path}.{key}")


# -- the report ---------------------------------------------------------------------------------


def _print(study: Any, options: SearchConfig, directory: Path, console: Console) -> None:
    best = report.ranked(study)
    console.print()
    if best:
        heads, names = ("trial", options.metric, *options.space, "time"), tuple(options.space)
        rows = (_cells(row, names, "bold" if row is best[0] else "") for row in best[:_MOST_ROWS])
        right = ("trial", "time")
        output.print_table(console, heads, rows, right=right, folded=names, spare=("time",))
    found = report.counts(study)
    console.print(
        f"trials: {', '.join(f'{count} {state}' for state, count in found.items()) or 'none'}",
        highlight=False,
    )
    shares = report.importances(study)
    if shares:
        listed = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
        output.print_lines(console, f"importance: {listed}")
    try:
        for path in report.draw(study, directory, options.metric):
            output.print_lines(console, f"plot: {path}")
    except MissingExtraError as error:
        console.print(f"no plots: {error}")
    if best:
        params = best[0].params
        chosen = {name: each.read(params[name]) for name, each in options.space.items()}
        given = assigned({**chosen, **_seeds(directory)})
        train = ["functrain", "train", options.base, *options.overrides, *given]
        output.print_lines(console, f"train the best with: {shlex.join(train)}")


def _seeds(directory: Path) -> dict[str, Any]:
    """Return the options by which a run has the seeds of the trials."""
    settings = read_settings(directory)
    seeds = settings["seeds"]
    if len(seeds) > 1:
        return {"seeds": seeds}
    of_base = {"seeds": None} if settings.get("base.seeds") else {}
    return {"seed": seeds[0], **of_base}


def _cells(row: report.Row, names: Sequence[str], style: str) -> list[object]:
    spread = "" if row.std is None else f" ± {row.std:.2g}"
    value = output.cell(f"{plain_text.number(row.value)}{spread}", style)
    params = (plain_text.number(row.params.get(name, "-")) for name in names)
    return [row.number, value, *params, f"{row.seconds:.1f} s"]


# The search sets these keys for each trial.
OWN_KEYS = ("seed", "directory", "name")


@attrs.frozen
class Trial:
    """Runs the base with the parameters of a trial, like ``functrain train``."""

    options: SearchConfig
    console: Console
    shared: dict[str, Any]
    roots: dict[str, Any]

    def describe(self) -> dict[str, Any]:
        """Return the description of the data; the rest is in the configuration."""
        return self.shared

    def __call__(
        self,
        params: dict[str, Any],
        seed: int,
        directory: Path,
        listeners: list[Listener],
    ) -> ft.Run:
        """Run one seed of a trial."""
        own: dict[str, Any] = {"seed": seed, "directory": str(directory)}
        own["name"] = directory.parent.name
        loaded = load_trial(self.options, {**params, **own})
        built = config.build(loaded.config)
        # Silent without a terminal, but there, so that fit adds no bar of its own.
        console = self.console if self.console.is_terminal else Console(quiet=True)
        with built.store.lock():
            state = None if built.store.steps() else built.initial()
            ConfigurationFile(directory, to_write(loaded, loaded.plain)).write()
            return fit(loaded.config, built, state, console, listeners)


def load_trial(options: SearchConfig, params: Mapping[str, Any]) -> config.Loaded:
    """Load the base of a search with other values."""
    return config.load(options.base, [*options.overrides, *assigned(params)])


def assigned(values: Mapping[str, Any]) -> list[str]:
    """Format overrides; JSON is YAML."""
    return [f"{name}={json.dumps(value)}" for name, value in values.items()]
