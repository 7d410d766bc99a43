"""From a typed configuration to the objects of a run; nothing is written here."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

import functrain as ft
from functrain.config.making import build_program, called
from functrain.config.places import joined, located
from functrain.config.reading import Loaded
from functrain.config.schema import FitOptions, RunConfig
from functrain.config.starting import check_weights, initial
from functrain.config.structuring import shown
from functrain.config.targets import TARGET, imported, instantiated, parameters
from functrain.core import learning_rate
from functrain.data import as_source
from functrain.errors import ConfigError
from functrain.training import schedule_end
from functrain.training.decisions import Decisions
from functrain.training.dispatch import Listeners
from functrain.training.durations import duration
from functrain.training.early_stopping.rule import as_rule
from functrain.training.limits import Limits
from functrain.training.monitored import By, check_possible
from functrain.training.plan import Evaluations

# The keys of what goes by a metric.
_KEYS: dict[By, str] = {
    "early_stop": "early_stop",
    "checkpoints": "checkpoints.monitor",
    "schedule": "optimizer",
    "restore_best": "fit.restore_best",
}


@attrs.frozen(eq=False)
class Built:
    """All that ``fit`` needs.

    Attributes:
        program: with its transformations.
        data: for training.
        eval_data: one set, several by name, or ``None``.
        early_stop: the rules, or ``None``.
        store: the run directory.
        listeners: in the order in which they are told.
        report: called at the end, or ``None``.
        initial: makes the state to begin with where ``init_from`` is given.
    """

    program: ft.Program
    data: Any
    eval_data: Any
    early_stop: Any
    store: ft.Checkpoints
    listeners: list[Any]
    report: Callable[[ft.Program, ft.TrainState], str] | None
    initial: Callable[[], ft.TrainState | None]


@contextlib.contextmanager
def importable(loaded: Loaded) -> Iterator[None]:
    """A block in which a configuration's import paths can be reached.

    They reach modules beside its file, in its ``import_from`` and in the working directory; errors
    in the block begin with file and line of the key they name.
    """
    before = list(sys.path)
    sys.path[:0] = [str(folder) for folder in [*import_folders(loaded), Path.cwd()]]
    try:
        with located(loaded.places):
            yield
    finally:
        sys.path[:] = before


def import_folders(loaded: Loaded) -> list[Path]:
    """The folders of a configuration's own modules, from the root of the file system."""
    own = [] if loaded.folder is None else [loaded.folder]
    base = loaded.folder or Path.cwd()
    return [*own, *((base / folder).resolve() for folder in loaded.config.import_from)]


def build(config: RunConfig) -> Built:
    """Make the objects a configuration describes.

    Raises:
        ConfigError: one of them cannot be made; the message names its key.
    """
    _check_durations(config)
    program = build_program(config)
    keeping = instantiated(attrs.asdict(config.checkpoints), "checkpoints")
    data = instantiated(config.data, "data")
    eval_data = instantiated(config.eval_data, "eval_data")
    listeners = _listeners(config, program)
    early_stop = instantiated(config.early_stop, "early_stop")
    called("fit.until", lambda: _check_horizon(program, data, config.fit))
    _check_eval_data(eval_data)
    _check_rules(early_stop)
    called("listeners", lambda: Listeners.of(listeners))
    called("init_from", lambda: check_weights(config))
    store = called("checkpoints", lambda: ft.Checkpoints(config.directory, **keeping))
    decisions = Decisions.of(program, as_rule(early_stop), store, config.fit.restore_best)
    _check_monitored(decisions, Evaluations.of(eval_data, duration(config.fit.eval_every)))
    return Built(
        program=program,
        data=data,
        eval_data=eval_data,
        early_stop=early_stop,
        store=store,
        listeners=listeners,
        report=None if config.report is None else imported(config.report, "report"),
        initial=lambda: called("init_from", lambda: initial(config, program)),
    )


def fit_arguments(config: RunConfig, built: Built) -> dict[str, Any]:
    """What ``fit`` is called with besides program, data, state and listeners.

    Example:
        >>> from functrain.config import load
        >>> loaded = load("digits").config
        >>> sorted(fit_arguments(loaded, build(loaded)))
        ['directory', 'early_stop', 'eval_data', 'eval_every', ... 'seed', 'until']
    """
    options = attrs.asdict(config.fit)
    own = {"seed": config.seed, "early_stop": built.early_stop}
    return {**options, **own, "eval_data": built.eval_data, "directory": built.store}


def _listeners(config: RunConfig, program: ft.Program) -> list[Any]:
    given = config.listeners or []
    pairs = enumerate(given) if isinstance(given, list) else given.items()
    return [
        _listener(node, joined("listeners", key), program)
        for key, node in pairs
        if node is not None
    ]


def _listener(node: dict[str, Any], where: str, program: ft.Program) -> Any:
    """A listener; one that looks into the program gets it, which no file could name."""
    target = imported(node[TARGET], joined(where, TARGET))
    if "program" in (parameters(target) or {}) and "program" not in node:
        node = {**node, "program": program}
    return instantiated(node, where)


def _check_durations(config: RunConfig) -> None:
    called("fit.until", lambda: Limits.of(config.fit.until))
    called("fit.eval_every", lambda: duration(config.fit.eval_every))
    called("fit.save_every", lambda: duration(config.fit.save_every))


def _check_eval_data(eval_data: Any) -> None:
    several = eval_data if isinstance(eval_data, Mapping) else {"": eval_data}
    for name, data in several.items():
        where = joined("eval_data", name)
        called(where, functools.partial(Evaluations.of, {name: data}, duration("1 epoch")))


def _check_rules(early_stop: Any) -> None:
    for rule in early_stop if isinstance(early_stop, list) else [early_stop]:
        if rule is not None and not callable(getattr(rule, "observe", None)):
            raise ConfigError(
                f"expected a rule such as functrain.EarlyStop, got {shown(rule)}", "early_stop"
            )


def _check_monitored(decisions: Decisions, evaluations: Evaluations) -> None:
    """See now whether an evaluation can give what the run goes by."""
    prefixes = evaluations.prefixes(decisions.program.recipe.ema is not None)
    for each in decisions.monitored():
        if prefixes or each.by != "checkpoints":  # without evaluations fit warns of these
            called(_KEYS[each.by], functools.partial(check_possible, [each], prefixes))
    called("optimizer", decisions.check_schedule)


def _check_horizon(program: ft.Program, data: Any, fit: FitOptions) -> None:
    """See now, before anything is written, whether the schedules fit into the run."""
    length = called("data", lambda: as_source(data).length)
    steps = Limits.of(fit.until).steps(length, program.recipe.accumulate)
    state = learning_rate.init(program.schedules)
    if steps is not None:
        state = learning_rate.with_horizon(program.schedules, state, steps)
    learning_rate.rate(program.schedules, state, 0)
    if fit.schedule_end is None:
        schedule_end.continued(program.schedules, state, 0, steps, None)
