"""Import paths and ``_target_`` mappings turned into the functions and objects they name."""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
import traceback
from collections.abc import Callable
from typing import Any

from functrain.errors import ConfigError, FunctrainError
from functrain.names import nearest

TARGET, PARTIAL = "_target_", "_partial_"
# Hydra's: whether lists stay those of OmegaConf. Here they are always plain.
_CONVERT = "_convert_"


def imported(path: str, where: str = "path") -> Any:
    """The object an import path names.

    In YAML it makes a class an argument:
    ``cls: {_target_: functrain.config.imported, path: torch.optim.RMSprop}``.

    Args:
        path: ``package.module.name``.
        where: the key in the configuration, for messages.

    Raises:
        ConfigError: a part of the path does not exist, or importing it fails.

    Example:
        >>> imported("functrain.optim.SGD", "optimizer")
        <class 'functrain.optim.methods.sgd.SGD'>
    """
    if not isinstance(path, str) or "." not in path:
        raise ConfigError(f"{where}: {path!r} is no import path such as package.module.name")
    parts = path.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        module = _module(".".join(parts[:cut]), where)
        if module is not None:
            return _attribute(module, parts[cut:], path, where)
    found = nearest(parts[0], _top_level())
    raise ConfigError(f"{where}: {path!r}: there is no module {parts[0]!r}{found}")


def instantiated(node: Any, where: str) -> Any:
    """A configuration node with every ``_target_`` in it called.

    Args:
        node: plain data.
        where: its key, for messages.

    Returns:
        The same data with objects in the place of targets; ``_partial_: true`` gives the function
        with its arguments filled in instead of its result.

    Raises:
        ConfigError: a path does not exist, an argument is unknown or missing, or the target
            refuses its arguments.
    """
    if isinstance(node, list):
        return [instantiated(child, f"{where}.{index}") for index, child in enumerate(node)]
    if not isinstance(node, dict):
        return node
    arguments = {
        key: instantiated(child, f"{where}.{key}")
        for key, child in node.items()
        if key not in (TARGET, PARTIAL, _CONVERT)
    }
    if TARGET not in node:
        return arguments
    target = imported(node[TARGET], f"{where}.{TARGET}")
    if not callable(target):
        raise ConfigError(f"{where}.{TARGET}: {node[TARGET]} cannot be called")
    _check_arguments(target, arguments, where, complete=not node.get(PARTIAL))
    if node.get(PARTIAL):
        return functools.partial(target, **arguments)
    return _called(target, arguments, where)


def _called(target: Callable[..., Any], arguments: dict[str, Any], where: str) -> Any:
    try:
        return target(**arguments)
    except FunctrainError as error:
        first = str(error).strip().splitlines()[0]
        raise ConfigError(f"{where}: {first}") from error
    except (OSError, TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {type(error).__name__}: {error}") from error


def _module(name: str, where: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            return None
        raise ConfigError(f"{where}: importing {name} failed: {error}") from error
    except Exception as error:  # whatever a user's module raises, its import path fails
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = "" if isinstance(error, SyntaxError) else f" ({last.filename}, line {last.lineno})"
        problem = f"{type(error).__name__}: {error}{place}"
        raise ConfigError(f"{where}: importing {name} failed: {problem}") from error


def _attribute(module: Any, names: list[str], path: str, where: str) -> Any:
    found = module
    for name in names:
        if not hasattr(found, name):
            owner = getattr(found, "__name__", repr(found))
            if name in _modules_in(found):
                raise _names_a_module(path, where)
            raise ConfigError(
                f"{where}: {path!r}: {owner} has no {name!r}{nearest(name, _names_in(found))}"
            )
        found = getattr(found, name)
    if inspect.ismodule(found):
        raise _names_a_module(path, where)
    return found


def _names_a_module(path: str, where: str) -> ConfigError:
    return ConfigError(f"{where}: {path!r} is a module; name something in it")


def _names_in(owner: Any) -> list[str]:
    return [*dir(owner), *_modules_in(owner)]


def _modules_in(owner: Any) -> list[str]:
    paths = getattr(owner, "__path__", None)
    return [] if paths is None else [module.name for module in pkgutil.iter_modules(paths)]


def _top_level() -> list[str]:
    return [module.name for module in pkgutil.iter_modules()]


def _check_arguments(
    target: Callable[..., Any], arguments: dict[str, Any], where: str, complete: bool
) -> None:
    try:
        parameters = inspect.signature(target).parameters
    except ValueError:
        return  # a builtin that tells nothing of itself
    kinds = {parameter.kind for parameter in parameters.values()}
    if inspect.Parameter.VAR_KEYWORD not in kinds:
        for name in arguments:
            if name not in parameters:
                raise ConfigError(
                    f"{where}.{name}: {_name_of(target)} takes no such argument"
                    f"{nearest(name, parameters)}"
                )
    for name, parameter in parameters.items():
        variadic = parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        needed = complete and not variadic and parameter.default is parameter.empty
        if needed and name not in arguments:
            raise ConfigError(f"{where}.{name}: missing; {_name_of(target)} needs it")


def _name_of(target: Callable[..., Any]) -> str:
    return getattr(target, "__qualname__", repr(target))
