"""The program that a configuration describes, with its transformations."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import Any, TypeVar

import attrs
import torch
from torch import nn

import functrain as ft
from functrain.config.places import joined
from functrain.config.schema import CompiledOptions, ProgramOptions, RunConfig, SharpnessOptions
from functrain.config.targets import TARGET, imported, instantiated
from functrain.errors import ConfigError, FunctrainError

Made = TypeVar("Made")
_LONGEST = 500  # characters of a message
_TRANSFORMATIONS = ("sharpness_aware", "compiled", "donated")


def build_program(config: RunConfig) -> ft.Program:
    """Make the program alone: model, loss, optimizer, the options of a step, transformations.

    Raises:
        ConfigError: one of them cannot be made; the message names its key.
    """
    options = attrs.asdict(
        config.program,
        recurse=False,
        filter=lambda field, _: field.name not in _TRANSFORMATIONS,
    )
    _check_optimizer(config.optimizer)
    optimizer = instantiated(config.optimizer, "optimizer")
    ema = config.program.ema
    if isinstance(ema, float):
        options["ema"] = called("program.ema", lambda: ft.EMA(ema))
    loss = function(config.loss, "loss")
    evaluate = None if config.evaluate is None else function(config.evaluate, "evaluate")
    program = called(
        "program",
        lambda: ft.program(lambda: model(config), loss, optimizer, evaluate=evaluate, **options),
    )
    return transformed(program, config.program)


def model(config: RunConfig) -> nn.Module:
    """The module, on the configuration's device.

    Raises:
        ConfigError: what its target makes is none, or there is no such device.
    """
    made = instantiated(config.model, "model")
    if not isinstance(made, nn.Module):
        name = type(made).__name__
        raise ConfigError(f"expected a target that makes a torch.nn.Module, got {name}", "model")
    if config.device is None:
        return made
    try:
        return made.to(config.device)
    except (RuntimeError, AssertionError) as error:
        # torch says with an assertion that it was built without a kind of device.
        raise ConfigError(str(error).splitlines()[0], "device") from error


def transformed(program: ft.Program, options: ProgramOptions) -> ft.Program:
    """A program with the transformations its options name, in the one order that they have."""
    if options.sharpness_aware is not False:
        sharpness = _options(options.sharpness_aware, SharpnessOptions)
        program = called(
            "program.sharpness_aware", lambda: ft.sharpness_aware(program, **sharpness)
        )
    if options.compiled is not False:
        compiling = _options(options.compiled, CompiledOptions)
        program = called("program.compiled", lambda: ft.compiled(program, **compiling))
    return ft.donated(program) if options.donated else program


def function(given: str | dict[str, Any], where: str) -> Callable[..., Any]:
    """A function by its import path, or one that a target makes.

    Args:
        given: the path, or a target; with ``_partial_: true`` some arguments are filled in.
        where: its key, for messages.

    Raises:
        ConfigError: it does not exist, or cannot be called.
    """
    found = imported(given, where) if isinstance(given, str) else instantiated(given, where)
    if not callable(found):
        hint = "" if isinstance(given, str) else "; _partial_: true gives the function itself"
        key = where if isinstance(given, str) else joined(where, TARGET)
        raise ConfigError(f"expected a function, got {type(found).__name__}{hint}", key)
    return found  # type: ignore[no-any-return]


def called(where: str, make: Callable[[], Made]) -> Made:
    """What ``make`` returns; an error of functrain's becomes one line that names the key."""
    try:
        return make()
    except ConfigError:
        raise
    except (FunctrainError, ValueError) as error:
        sentence = textwrap.shorten(str(error), _LONGEST, placeholder=" ...")
        raise ConfigError(sentence, where) from error


def _check_optimizer(node: dict[str, Any]) -> None:
    """Say how to have a class of torch's, which wants to be called with parameters."""
    found = imported(node[TARGET], joined("optimizer", TARGET))
    if isinstance(found, type) and issubclass(found, torch.optim.Optimizer):
        raise ConfigError(
            f"{node[TARGET]} works on a module's own tensors; write one of functrain.optim, or "
            "_target_: functrain.optim.from_torch with "
            f"cls: {{_target_: functrain.config.imported, path: {node[TARGET]}}}",
            joined("optimizer", TARGET),
        )


def _options(given: Any, cls: type) -> dict[str, Any]:
    return attrs.asdict(cls() if given is True else given)
