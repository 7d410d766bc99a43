"""From a typed configuration to the objects of a run; nothing is written here."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

import functrain as ft
from functrain import learning_rate
from functrain.config.reading import Loaded
from functrain.config.schema import RunConfig
from functrain.config.targets import TARGET, imported, instantiated
from functrain.data import as_source
from functrain.durations import duration
from functrain.errors import ConfigError, FunctrainError
from functrain.events import Listeners
from functrain.limits import Limits, Until


@attrs.frozen(eq=False)
class Built:
    """All that ``fit`` needs."""

    program: ft.Program
    data: Any
    eval_data: Any
    store: ft.Checkpoints
    listeners: list[Any]
    report: Callable[[ft.Program, ft.TrainState], str] | None


@contextlib.contextmanager
def importable(loaded: Loaded) -> Iterator[None]:
    """Let import paths reach modules beside the file and in the working directory."""
    before = list(sys.path)
    sys.path[:0] = [str(folder) for folder in (loaded.folder, Path.cwd()) if folder is not None]
    try:
        yield
    finally:
        sys.path[:] = before


def build(config: RunConfig) -> Built:
    """Make the objects a configuration describes.

    Raises:
        ConfigError: one of them cannot be made; the message names its key.
    """
    _checked("fit.until", lambda: Limits.of(config.fit.until))
    _checked("fit.eval_every", lambda: duration(config.fit.eval_every))
    _checked("fit.save_every", lambda: duration(config.fit.save_every))
    program = build_program(config)
    keeping = attrs.asdict(config.checkpoints)
    data = instantiated(_with_target(config.data, "data"), "data")
    eval_data = instantiated(config.eval_data, "eval_data")
    listeners = instantiated(config.listeners, "listeners")
    _checked("fit.until", lambda: _check_horizon(program, data, config.fit.until))
    _checked("eval_data", lambda: _check_eval_data(eval_data))
    _checked("listeners", lambda: Listeners.of(listeners))
    return Built(
        program=program,
        data=data,
        eval_data=eval_data,
        store=_checked("checkpoints", lambda: ft.Checkpoints(config.directory, **keeping)),
        listeners=listeners,
        report=None if config.report is None else imported(config.report, "report"),
    )


def build_program(config: RunConfig) -> ft.Program:
    """Make the program alone: model, loss, optimizer and the options of a step.

    Raises:
        ConfigError: one of them cannot be made; the message names its key.
    """
    optimizer = instantiated(config.optimizer, "optimizer")
    loss = imported(config.loss, "loss")
    evaluate = None if config.evaluate is None else imported(config.evaluate, "evaluate")
    options = attrs.asdict(config.program, recurse=False)
    program: ft.Program = _checked(
        "program",
        lambda: ft.program(
            lambda: instantiated(config.model, "model"),
            loss,
            optimizer,
            evaluate=evaluate,
            **options,
        ),
    )
    return program


def _check_eval_data(eval_data: Any) -> None:
    several = eval_data.values() if isinstance(eval_data, Mapping) else [eval_data]
    for data in several if eval_data is not None else ():
        as_source(data)


def _check_horizon(program: ft.Program, data: Any, until: Until) -> None:
    """See now, before anything is written, whether the schedules fit into the run."""
    length = _checked("data", lambda: as_source(data).length)
    steps = Limits.of(until).steps(length, program.recipe.accumulate)
    state = learning_rate.init(program.schedules)
    if steps is not None:
        state = learning_rate.with_horizon(program.schedules, state, steps)
    learning_rate.rate(program.schedules, state, 0)


def _with_target(node: dict[str, Any], where: str) -> dict[str, Any]:
    if TARGET not in node:
        raise ConfigError(f"{where}.{TARGET}: missing; give the import path of what makes it")
    return node


def _checked(where: str, make: Callable[[], Any]) -> Any:
    """What ``make`` returns; an error of functrain's becomes one line that names the key."""
    try:
        return make()
    except ConfigError:
        raise
    except (FunctrainError, ValueError) as error:
        raise ConfigError(f"{where}: {' '.join(str(error).split())}") from error
