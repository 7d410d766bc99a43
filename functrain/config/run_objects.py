"""Build the objects of a run from a typed configuration, without writing anything."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

import functrain as ft
from functrain.checkpoint.manifest_file import locate
from functrain.checkpoint.model_weights import weights
from functrain.config.conversion import as_yaml
from functrain.config.factories import build_program
from functrain.config.loading import Loaded
from functrain.config.locations import add_location, build_key, join_key
from functrain.config.schema import FitOptions, RunConfig, WeightsOptions
from functrain.config.targets import TARGET, imported, instantiated, parameters
from functrain.core import learning_rate
from functrain.data import as_source
from functrain.errors import ConfigError
from functrain.errors.paths import absolute, expanded
from functrain.own_steps.states import seed_of
from functrain.schedules import schedule_end
from functrain.training.decisions import Decisions
from functrain.training.dispatch import Listeners
from functrain.training.durations import duration
from functrain.training.early_stopping.rule import as_rule
from functrain.training.limits import Limits
from functrain.training.monitored import By, check_possible
from functrain.training.plan import Evaluations

# The keys of the options that depend on a metric.
_KEYS: dict[By, str] = {
    "early_stop": "early_stop",
    "checkpoints": "checkpoints.monitor",
    "schedule": "optimizer",
    "restore_best": "fit.restore_best",
}


@attrs.frozen(eq=False)
class RunObjects:
    """The objects that ``fit`` needs; ``initial`` returns None where ``init_from`` is not given."""

    program: Any
    data: Any
    eval_data: Any
    early_stop: Any
    store: ft.Checkpoints
    listeners: list[Any]
    report: Callable[[ft.Program, ft.TrainState], str] | None
    initial: Callable[[], ft.TrainState | None]


@contextlib.contextmanager
def importable(loaded: Loaded) -> Iterator[None]:
    """Make the import paths of a configuration importable within the block.

    They may name modules in the folder of the file, in its ``import_from`` and in the working
    directory. Errors in the block begin with the file and the line of their key.
    """
    before = list(sys.path)
    sys.path[:0] = [str(folder) for folder in [*import_folders(loaded), Path.cwd()]]
    try:
        with add_location(loaded.places):
            yield
    finally:
        sys.path[:] = before


def import_folders(loaded: Loaded) -> list[Path]:
    """Return the absolute folders of the modules of a configuration."""
    own = [] if loaded.folder is None else [loaded.folder]
    base = loaded.folder or Path.cwd()
    return [*own, *((base / expanded(folder)).resolve() for folder in loaded.config.import_from)]


def build(config: RunConfig) -> RunObjects:
    """Build the objects of a configuration.

    Raises:
        ConfigError: an object cannot be built; the message names its key.
    """
    directory = absolute(config.directory)  # before any code of the user may change the folder
    build_key("fit.until", lambda: Limits.of(config.fit.until))
    build_key("fit.eval_every", lambda: duration(config.fit.eval_every))
    build_key("fit.save_every", lambda: duration(config.fit.save_every))
    program = build_program(config)
    keeping = instantiated(attrs.asdict(config.checkpoints), "checkpoints")
    data = instantiated(config.data, "data")
    eval_data = instantiated(config.eval_data, "eval_data")
    listeners = _listeners(config, program)
    early_stop = instantiated(config.early_stop, "early_stop")
    build_key("fit.until", lambda: _check_schedules(program, data, config.fit))
    _check_eval_data(eval_data)
    _check_rules(early_stop)
    build_key("listeners", lambda: Listeners.of(listeners))
    _check_weights(config)
    store = build_key("checkpoints", lambda: ft.Checkpoints(directory, **keeping))
    decisions = Decisions.of(program, as_rule(early_stop), store, config.fit.restore_best)
    _check_monitored(decisions, Evaluations.of(eval_data, duration(config.fit.eval_every)))
    return RunObjects(
        program=program,
        data=data,
        eval_data=eval_data,
        early_stop=early_stop,
        store=store,
        listeners=listeners,
        report=None if config.report is None else imported(config.report, "report"),
        initial=lambda: _initial_state(config, program),
    )


def fit_arguments(config: RunConfig, built: RunObjects) -> dict[str, Any]:
    """Return the arguments of ``fit`` except program, data, state and listeners.

    Example:
        >>> from functrain.config import load
        >>> loaded = load("digits").config
        >>> sorted(fit_arguments(loaded, build(loaded)))
        ['directory', 'early_stop', 'eval_data', 'eval_every', ... 'seed', 'until']
    """
    options = attrs.asdict(config.fit)
    own = {"seed": config.seed, "early_stop": built.early_stop}
    return {**options, **own, "eval_data": built.eval_data, "directory": built.store}


def _listeners(config: RunConfig, program: Any) -> list[Any]:
    given = config.listeners or []
    pairs = enumerate(given) if isinstance(given, list) else given.items()
    return [
        _listener(node, join_key("listeners", key), program)
        for key, node in pairs
        if node is not None
    ]


def _listener(node: dict[str, Any], where: str, program: Any) -> Any:
    """Build a listener, passing the program if it has a parameter for it."""
    target = imported(node[TARGET], join_key(where, TARGET))
    if "program" in (parameters(target) or {}) and "program" not in node:
        node = {**node, "program": program}
    return instantiated(node, where)


def _check_eval_data(eval_data: Any) -> None:
    several = eval_data if isinstance(eval_data, Mapping) else {"": eval_data}
    for name, data in several.items():
        where = join_key("eval_data", name)
        build_key(where, functools.partial(Evaluations.of, {name: data}, duration("1 epoch")))


def _check_rules(early_stop: Any) -> None:
    for rule in early_stop if isinstance(early_stop, list) else [early_stop]:
        if rule is not None and not callable(getattr(rule, "observe", None)):
            raise ConfigError(
                f"expected a rule such as functrain.EarlyStop, got {as_yaml(rule)}", "early_stop"
            )


def _check_monitored(decisions: Decisions, evaluations: Evaluations) -> None:
    """Check that an evaluation can provide the metrics that options monitor."""
    prefixes = evaluations.prefixes(decisions.program.recipe.ema is not None)
    for each in decisions.monitored():
        if prefixes or each.by != "checkpoints":  # without evaluations fit warns about these
            build_key(_KEYS[each.by], functools.partial(check_possible, [each], prefixes))
    build_key("optimizer", decisions.check_schedule)


def _check_schedules(program: Any, data: Any, fit: FitOptions) -> None:
    """Check that the schedules fit the length of the run."""
    length = build_key("data", lambda: as_source(data).length)
    steps = Limits.of(fit.until).steps(length, program.recipe.accumulate)
    state = learning_rate.init(program.schedules)
    if steps is not None:
        state = learning_rate.with_total_steps(program.schedules, state, steps)
    learning_rate.rate(program.schedules, state, 0)
    if fit.schedule_end is None and "" in program.leaves():
        schedule_end.continued(program.schedules, state, 0, steps, None)


def _check_weights(config: RunConfig) -> None:
    """Check that the paths of ``init_from`` exist, without reading them."""
    for key, _, options in _given(config):
        if not locate(options.path).exists():
            raise ConfigError(f"there is no checkpoint and no file at {options.path}", key)


def _initial_state(config: RunConfig, program: Any) -> Any:
    """Return a new state with the weights of ``init_from``, or ``None`` without the option."""
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
