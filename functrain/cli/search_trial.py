"""A trial of ``functrain search``: its configuration, trained alone or as a member."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import attrs
import orjson
from rich.console import Console

import functrain as ft
from functrain import config
from functrain.cli.run_directory import to_write, write_or_check
from functrain.config import SearchConfig
from functrain.listeners import ProgressBar
from functrain.search.objective import with_rules
from functrain.training.events import Listener

# The search sets these keys for each trial.
OWN_KEYS = ("seed", "directory", "name")
# Only these sections may hold what members of a population have of their own.
_OF_MEMBERS = ("optimizer", "schedule")
_OF_PROGRAM = ("clip_norm", "clip_value", "ema")


@attrs.frozen
class Trial:
    """Runs the base with the parameters of a trial, like ``functrain train``."""

    options: SearchConfig
    console: Console

    def __call__(
        self,
        params: dict[str, Any],
        seed: int,
        directory: Path,
        listeners: list[Listener],
        population: Mapping[str, Any] | None = None,
    ) -> ft.Run:
        """Run one seed of a trial, or of a population of trials."""
        own: dict[str, Any] = {"seed": seed, "directory": str(directory)}
        own["name"] = directory.parent.name
        if population is not None:
            own["population"] = population
        loaded = load_trial(self.options, {**params, **own})
        built = config.build(loaded.config)
        arguments = config.fit_arguments(loaded.config, built)
        if built.eval_data is not None:
            arguments["early_stop"] = with_rules(built.early_stop, listeners)
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
                **arguments,
            )

    def key(self, params: dict[str, Any]) -> Hashable:
        """Return the configuration without the sections that may differ between members."""
        plain = load_trial(self.options, params).plain
        rest = {k: v for k, v in plain.items() if k not in (*OWN_KEYS, *_OF_MEMBERS)}
        program = {k: v for k, v in (plain.get("program") or {}).items() if k not in _OF_PROGRAM}
        return orjson.dumps({**rest, "program": program}, option=orjson.OPT_SORT_KEYS)

    def program(self, params: dict[str, Any]) -> ft.Program:
        """Return the program of a trial, eager."""
        options = load_trial(self.options, params).config
        eager = attrs.evolve(options.program, compiled=False, donated=False)
        program: ft.Program = config.build_program(attrs.evolve(options, program=eager))
        return program

    def _progress(self) -> ProgressBar:
        """Return a bar, silent without a terminal: listener states depend on its position."""
        return ProgressBar(self.console if self.console.is_terminal else Console(quiet=True))


def load_trial(options: SearchConfig, params: Mapping[str, Any]) -> config.Loaded:
    """Load the base of a search with other values."""
    return config.load(options.base, [*options.overrides, *assigned(params)])


def assigned(values: Mapping[str, Any]) -> list[str]:
    """Format overrides; JSON is YAML."""
    return [f"{name}={json.dumps(value)}" for name, value in values.items()]
