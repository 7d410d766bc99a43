"""Initialize a run with the weights of ``init_from``."""

from __future__ import annotations

from typing import Any

import functrain as ft
from functrain.checkpoint.manifest_file import locate
from functrain.checkpoint.weights import weights
from functrain.config.schema import RunConfig, WeightsOptions
from functrain.errors import ConfigError
from functrain.populations.program import Population
from functrain.tree.patterns import matches


def check_weights(config: RunConfig) -> None:
    """Check that the path of ``init_from`` exists, without reading it.

    Raises:
        ConfigError: the path does not exist.
    """
    options = _options(config)
    if options is not None and not locate(options.path).exists():
        raise ConfigError(f"there is no checkpoint and no file at {options.path}", "init_from")


def initial_state(config: RunConfig, program: Any) -> ft.TrainState | None:
    """Return a new state with the weights of ``init_from``, or ``None`` without the option.

    Raises:
        ConfigError: no name matches ``only``.
        FunctrainError: the weights cannot be read, or do not fit the model.
    """
    options = _options(config)
    if options is None:
        return None
    found = weights(options.path, options.weights)
    if options.only is not None:
        patterns = options.only
        chosen = {name: value for name, value in found.items() if matches(patterns, name, value)}
        if not chosen:
            raise ConfigError(
                f"{patterns!r} matches none of the weights there: {[*found][:8]}", "init_from.only"
            )
        one = program.programs[0] if isinstance(program, Population) else program
        fresh = one.init(config.seed)
        found = {**fresh.params, **chosen}
    begun: ft.TrainState = program.init(config.seed, params=found)
    return begun


def _options(config: RunConfig) -> WeightsOptions | None:
    given = config.init_from
    return WeightsOptions(path=given) if isinstance(given, str) else given
