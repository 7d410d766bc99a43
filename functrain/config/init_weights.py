"""Initialize a run with the weights of ``init_from``."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import attrs

from functrain.checkpoint.manifest_file import locate
from functrain.checkpoint.weights import weights
from functrain.config.locations import build_key
from functrain.config.schema import RunConfig, WeightsOptions
from functrain.errors import ConfigError
from functrain.own_steps.states import seed_of


def check_weights(config: RunConfig) -> None:
    """Check that the paths of ``init_from`` exist, without reading them.

    Raises:
        ConfigError: a path does not exist.
    """
    for key, _, options in _given(config):
        if not locate(options.path).exists():
            raise ConfigError(f"there is no checkpoint and no file at {options.path}", key)


def initial_state(config: RunConfig, program: Any) -> Any:
    """Return a new state with the weights of ``init_from``, or ``None`` without the option.

    Raises:
        ConfigError: the weights cannot be read, or do not fit the model; or ``only`` or
            ``rename`` matches no name.
    """
    states: dict[str, Any] = {}
    for key, name, options in _given(config):
        own = program if name is None else program.programs[name]
        seed = config.seed if name is None else seed_of(name, config.seed)
        states[name or ""] = build_key(key, functools.partial(_begun, own, seed, options))
    if not states or "" in states:
        return states.get("")
    return attrs.evolve(program.init(config.seed), **states)


def _begun(program: Any, seed: int, options: WeightsOptions) -> Any:
    found = weights(options.path, options.weights, program=options.program)
    return program.init(seed, params=found, only=options.only, rename=options.rename)


def _given(config: RunConfig) -> Iterator[tuple[str, str | None, WeightsOptions]]:
    """Yield the key, the name of the program and the options of each ``init_from``."""
    for name, part in [(None, config), *(config.programs or {}).items()]:
        given, key = part.init_from, "init_from" if name is None else f"programs.{name}.init_from"
        if given is not None:
            yield key, name, WeightsOptions(path=given) if isinstance(given, str) else given
