"""Import objects by path, and create objects from ``_target_`` mappings."""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from functrain.config.locations import join_key
from functrain.errors import ConfigError, FunctrainError
from functrain.errors.nearest import nearest

TARGET, PARTIAL, ARGUMENTS = "_target_", "_partial_", "_args_"
# Of Hydra. Lists and mappings are always plain here, as with ``_convert_: all``.
_RECURSIVE, _CONVERT = "_recursive_", "_convert_"
_RESERVED = (TARGET, PARTIAL, ARGUMENTS, _RECURSIVE, _CONVERT)


def imported(path: str, where: str = "path") -> Any:
    """Import an object by its path.

    In YAML this passes a class as an argument:
    ``cls: {_target_: functrain.config.imported, path: torch.optim.RMSprop}``.

    Args:
        path: ``package.module.name``.
        where: the key in the configuration, for messages.

    Raises:
        ConfigError: the path does not exist, or importing it fails.

    Example:
        >>> imported("functrain.optim.SGD", "optimizer")
        <class 'functrain.optim.methods.sgd.SGD'>
    """
    if not isinstance(path, str) or "." not in path:
        raise ConfigError(f"{path!r} is not an import path such as package.module.name", where)
    parts = path.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        module = _module(".".join(parts[:cut]), where)
        if module is not None:
            return _attribute(module, parts[cut:], path, where)
    found = nearest(parts[0], _top_level())
    raise ConfigError(f"{path!r}: there is no module {parts[0]!r}{found}", where)


def instantiated(node: Any, where: str) -> Any:
    """Call every ``_target_`` in a configuration node.

    Args:
        node: plain data.
        where: the key of the node, for messages.

    Returns:
        The same data with targets replaced by objects. ``_partial_: true`` returns the function
        with its arguments bound instead of its result; ``_args_`` are positional arguments.

    Raises:
        ConfigError: a path does not exist, an argument is unknown or missing, or the call
            raises an error.
    """
    if isinstance(node, list):
        return [instantiated(child, join_key(where, i)) for i, child in enumerate(node)]
    if not isinstance(node, dict):
        return node
    _check_reserved(node, where)
    recursive = node.get(_RECURSIVE, True)
    arguments = {
        key: instantiated(child, join_key(where, key)) if recursive else child
        for key, child in node.items()
        if key not in _RESERVED or key == ARGUMENTS
    }
    if TARGET not in node:
        return arguments
    positional = arguments.pop(ARGUMENTS, [])
    target = imported(node[TARGET], join_key(where, TARGET))
    if not callable(target):
        raise ConfigError(f"{node[TARGET]} cannot be called", join_key(where, TARGET))
    partial = bool(node.get(PARTIAL))
    _check_arguments(target, positional, arguments, where, complete=not partial)
    if partial:
        return functools.partial(target, *positional, **arguments)
    return _called(target, positional, arguments, where)


def _check_reserved(node: dict[Any, Any], where: str) -> None:
    """Check for unknown keys between underscores, which are most likely misspelled."""
    for key in node:
        dunder = isinstance(key, str) and key.startswith("_") and key.endswith("_")
        if dunder and key not in _RESERVED:
            hint = nearest(key, _RESERVED)
            raise ConfigError(f"unknown key{hint}", join_key(where, key))
    if TARGET not in node and PARTIAL in node:
        raise ConfigError(f"needs {TARGET} in the same mapping", join_key(where, PARTIAL))


def parameters(target: Callable[..., Any]) -> Mapping[str, inspect.Parameter] | None:
    """Return the parameters of a function or class, or ``None`` for a builtin without them."""
    try:
        return inspect.signature(target).parameters
    except ValueError:
        return None


def _called(
    target: Callable[..., Any], positional: list[Any], arguments: dict[str, Any], where: str
) -> Any:
    try:
        return target(*positional, **arguments)
    except ConfigError:
        raise
    except FunctrainError as error:
        raise ConfigError(str(error).strip().splitlines()[0], where) from error
    except (OSError, TypeError, ValueError, LookupError, RuntimeError) as error:
        message = " ".join(str(error).split())
        raise ConfigError(f"{type(error).__name__}: {message}{_origin(error)}", where) from error


def _origin(error: BaseException) -> str:
    """Return the line that raised an error, unless the call itself did."""
    frames = traceback.extract_tb(error.__traceback__)
    return "" if len(frames) < 2 else f" ({frames[-1].filename}, line {frames[-1].lineno})"


def _module(name: str, where: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            return None
        raise ConfigError(f"importing {name} failed: {error}", where) from error
    except Exception as error:  # not hidden: the message has the error of the module
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = "" if isinstance(error, SyntaxError) else f" ({last.filename}, line {last.lineno})"
        problem = f"{type(error).__name__}: {error}{place}"
        raise ConfigError(f"importing {name} failed: {problem}", where) from error


def _attribute(module: Any, names: list[str], path: str, where: str) -> Any:
    found = module
    for name in names:
        if not hasattr(found, name):
            owner = getattr(found, "__name__", repr(found))
            if name in _modules_in(found):
                raise _names_a_module(path, where)
            hint = nearest(name, _names_in(found))
            raise ConfigError(f"{path!r}: {owner} has no {name!r}{hint}", where)
        found = getattr(found, name)
    if inspect.ismodule(found):
        raise _names_a_module(path, where)
    return found


def _names_a_module(path: str, where: str) -> ConfigError:
    return ConfigError(f"{path!r} is a module; name an object in it", where)


def _names_in(owner: Any) -> list[str]:
    return [*dir(owner), *_modules_in(owner)]


def _modules_in(owner: Any) -> list[str]:
    paths = getattr(owner, "__path__", None)
    return [] if paths is None else [module.name for module in pkgutil.iter_modules(paths)]


def _top_level() -> list[str]:
    return [module.name for module in pkgutil.iter_modules()]


def _check_arguments(
    target: Callable[..., Any],
    positional: list[Any],
    arguments: dict[str, Any],
    where: str,
    complete: bool,
) -> None:
    known = parameters(target)
    if known is None:
        return
    kinds = {parameter.kind for parameter in known.values()}
    if inspect.Parameter.VAR_KEYWORD not in kinds:
        for name in arguments:
            if name not in known:
                hint = nearest(str(name), known)
                raise ConfigError(
                    f"{_name_of(target)} takes no such argument{hint}", join_key(where, name)
                )
    for name, parameter in [*known.items()][len(positional) :]:
        variadic = parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        needed = complete and not variadic and parameter.default is parameter.empty
        if needed and name not in arguments:
            raise ConfigError(f"missing; {_name_of(target)} needs it", join_key(where, name))


def _name_of(target: Callable[..., Any]) -> str:
    return getattr(target, "__qualname__", repr(target))
