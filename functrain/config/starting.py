"""The weights a run begins with where they are those of another."""

from __future__ import annotations

import functrain as ft
from functrain.checkpoint.loading import locate
from functrain.checkpoint.weights import weights
from functrain.config.schema import RunConfig, WeightsOptions
from functrain.errors import ConfigError
from functrain.errors.nearest import matches


def check_weights(config: RunConfig) -> None:
    """See that there is something at the path of ``init_from``; it is not read.

    Raises:
        ConfigError: there is nothing.
    """
    options = _options(config)
    if options is not None and not locate(options.path).exists():
        raise ConfigError(f"there is no checkpoint and no file at {options.path}", "init_from")


def initial(config: RunConfig, program: ft.Program) -> ft.TrainState | None:
    """A state with the weights of ``init_from`` and all else fresh; ``None`` without them.

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
        taken = {name: value for name, value in found.items() if matches(patterns, name, value)}
        if not taken:
            raise ConfigError(
                f"{patterns!r} matches none of the weights there: {[*found][:8]}", "init_from.only"
            )
        fresh = program.init(config.seed)
        found = {**fresh.params, **taken}
    return program.init(config.seed, params=found)


def _options(config: RunConfig) -> WeightsOptions | None:
    given = config.init_from
    return WeightsOptions(path=given) if isinstance(given, str) else given
