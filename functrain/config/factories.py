"""Build the program of a configuration, with its transformations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import nn

import functrain as ft
from functrain.config.locations import build_key, join_key
from functrain.config.schema import (
    CompiledOptions,
    PartConfig,
    PopulationOptions,
    ProgramOptions,
    RunConfig,
    SharpnessOptions,
)
from functrain.config.targets import TARGET, imported, instantiated
from functrain.errors import ConfigError

_TRANSFORMATIONS = ("sharpness_aware", "parts", "buffers", "compiled", "donated")


def build_program(config: RunConfig) -> Any:
    """Build the program: of a model, of several, or of functions over a tree.

    Raises:
        ConfigError: a part cannot be built; the message names its key.
    """
    if config.step is None:
        return _of_model(config)
    step = build_function(config.step, "step")
    evaluate = _evaluate(config)
    if config.init is not None:
        init = build_function(config.init, "init")
        made: Any = build_key("step", lambda: ft.custom(init, step, evaluate))
    else:
        programs = {name: _part(config, name, one) for name, one in (config.programs or {}).items()}
        made = build_key("programs", lambda: ft.joint(programs, step=step, evaluate=evaluate))
    if attrs.evolve(config.program, donated=False) != ProgramOptions():
        raise ConfigError(
            "has no effect with step; give it to a program: programs.NAME.program", "program"
        )
    if not config.program.donated:
        return made
    return build_key("program.donated", lambda: ft.donated(made))


def _part(config: RunConfig, name: str, part: PartConfig) -> Any:
    """Build a program of a joint one, on the device of the configuration."""
    fields = {field.name: getattr(part, field.name) for field in attrs.fields(PartConfig)}
    alone = attrs.evolve(config, **fields, programs=None)
    try:
        return build_program(alone)
    except ConfigError as error:
        own, key = str(error), join_key("programs", name, error.where or "")
        raise ConfigError(own.removeprefix(f"{error.where}: "), key) from error


def _of_model(config: RunConfig) -> ft.Program:
    """Build the program: model, loss, optimizer, the options of a step, and transformations."""
    assert config.optimizer is not None
    assert config.loss is not None
    options = attrs.asdict(
        config.program, recurse=False, filter=lambda field, _: field.name not in _TRANSFORMATIONS
    )
    _check_optimizer(config.optimizer)
    optimizer = instantiated(config.optimizer, "optimizer")
    ema = config.program.ema
    if isinstance(ema, float):
        options["ema"] = build_key("program.ema", lambda: ft.EMA(ema))
    loss = build_function(config.loss, "loss")
    options["evaluate"] = _evaluate(config)
    program = build_key(
        "program", lambda: ft.program(lambda: build_model(config), loss, optimizer, **options)
    )
    return transform(program, config.program, config.placement, config.population)


def build_model(config: RunConfig) -> nn.Module:
    """Build the module on the device of the configuration."""
    made = instantiated(config.model, "model")
    if not isinstance(made, nn.Module):
        name = type(made).__name__
        raise ConfigError(f"expected a target that creates a torch.nn.Module, got {name}", "model")
    if config.device is None:
        return made
    try:
        return made.to(config.device)
    except (RuntimeError, AssertionError) as error:
        # torch raises an AssertionError if it was built without this kind of device.
        raise ConfigError(str(error).splitlines()[0], "device") from error


def transform(
    program: ft.Program,
    options: ProgramOptions,
    placement: ft.Placement | None = None,
    population: PopulationOptions | None = None,
) -> ft.Program:
    """Apply the transformations of the options, in their fixed order."""
    if options.sharpness_aware is not False:
        sharpness = _options(options.sharpness_aware, SharpnessOptions)
        program = build_key(
            "program.sharpness_aware", lambda: ft.sharpness_aware(program, **sharpness)
        )
    if population is not None:
        made, members = program, attrs.asdict(population)
        given = members["hyperparameters"]
        members["hyperparameters"] = instantiated(given, "population.hyperparameters")
        program = build_key("population", lambda: ft.population(made, **members))
    if options.compiled is not False:
        compiling = _options(options.compiled, CompiledOptions)
        program = build_key("program.compiled", lambda: ft.compiled(program, **compiling))
    if options.parts is not None:
        parts, rules = options.parts, options.buffers
        program = build_key(
            "program.parts", lambda: ft.sharded(program, placement, parts=parts, buffers=rules)
        )
    elif options.buffers is not None or placement not in (None, ft.Placement()):
        key = "placement" if options.buffers is None else "program.buffers"
        raise ConfigError("has no effect without program.parts, the parts of each batch", key)
    return ft.donated(program) if options.donated else program


def build_function(given: str | dict[str, Any], where: str) -> Callable[..., Any]:
    """Return a function from an import path, or from a target that may bind arguments."""
    found = imported(given, where) if isinstance(given, str) else instantiated(given, where)
    if not callable(found):
        hint = "" if isinstance(given, str) else "; _partial_: true returns the function itself"
        key = where if isinstance(given, str) else join_key(where, TARGET)
        raise ConfigError(f"expected a function, got {type(found).__name__}{hint}", key)
    return found  # type: ignore[no-any-return]


def _evaluate(config: RunConfig) -> Callable[..., Any] | None:
    return None if config.evaluate is None else build_function(config.evaluate, "evaluate")


def _check_optimizer(node: dict[str, Any]) -> None:
    """Explain how to use a class of torch.optim, which cannot be a target itself."""
    found = imported(node[TARGET], join_key("optimizer", TARGET))
    if isinstance(found, type) and issubclass(found, torch.optim.Optimizer):
        raise ConfigError(
            f"{node[TARGET]} updates the tensors of a module; use one of functrain.optim, or "
            "_target_: functrain.optim.from_torch with "
            f"cls: {{_target_: functrain.config.imported, path: {node[TARGET]}}}",
            join_key("optimizer", TARGET),
        )


def _options(given: Any, cls: type) -> dict[str, Any]:
    return attrs.asdict(cls() if given is True else given)
