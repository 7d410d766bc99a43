"""Initialize a run with the weights of ``init_from``."""

from __future__ import annotations

from typing import Any

import functrain as ft
from functrain.checkpoint.manifest_file import locate
from functrain.checkpoint.weights import weights
from functrain.config.schema import RunConfig, WeightsOptions
from functrain.errors import ConfigError


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
        FunctrainError: the weights cannot be read, or do not fit the model; or ``only`` or
            ``rename`` matches no name.
    """
    options = _options(config)
    if options is None:
        return None
    found = weights(options.path, options.weights)
    begun: ft.TrainState = program.init(
        config.seed, params=found, only=options.only, rename=options.rename
    )
    return begun


def _options(config: RunConfig) -> WeightsOptions | None:
    given = config.init_from
    return WeightsOptions(path=given) if isinstance(given, str) else given
