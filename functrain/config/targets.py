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
    # A name in a module comes before a module of that name in its package, as for ``from``.
    for cut in range(len(parts) - 1, 0, -1):
        module = _module(".".join(parts[:cut]), where)
        if module is not None:
            return _attribute(module, parts[cut:], path, where)
    found = nearest(parts[0], [module.name for module in pkgutil.iter_modules()])
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
    call = functools.partial(target, *positional, **arguments)
    _check_arguments(call, where, complete=not node.get(PARTIAL))
    return call if node.get(PARTIAL) else _called(call, where)


def parameters(target: Callable[..., Any]) -> Mapping[str, inspect.Parameter] | None:
    """Return the parameters of a function or class, or ``None`` for a builtin without them."""
    try:
        return inspect.signature(target).parameters
    except ValueError:
        return None


def _check_reserved(node: dict[Any, Any], where: str) -> None:
    """Check for unknown keys between underscores, which are most likely misspelled."""
    for key in node:
        if not isinstance(key, str):
            if TARGET in node:
                raise ConfigError("an argument must be text", join_key(where, key))
        elif key.startswith("_") and key.endswith("_") and key not in _RESERVED:
            raise ConfigError(f"unknown key{nearest(key, _RESERVED)}", join_key(where, key))
    if TARGET not in node and PARTIAL in node:
        raise ConfigError(f"needs {TARGET} in the same mapping", join_key(where, PARTIAL))


def _check_arguments(call: functools.partial[Any], where: str, complete: bool) -> None:
    """Check the arguments before the call, so that a mistake has the key of its argument."""
    known = parameters(call.func)
    if known is None:
        return
    name_of = getattr(call.func, "__qualname__", repr(call.func))
    if not any(each.kind is each.VAR_KEYWORD for each in known.values()):
        for name in call.keywords:
            if name not in known:
                message = f"{name_of} takes no such argument{nearest(str(name), known)}"
                raise ConfigError(message, join_key(where, name))
    for name, each in [*known.items()][len(call.args) :]:
        variadic = each.kind in (each.VAR_KEYWORD, each.VAR_POSITIONAL)
        needed = complete and not variadic and each.default is each.empty
        if needed and name not in call.keywords:
            raise ConfigError(f"missing; {name_of} needs it", join_key(where, name))


def _called(call: Callable[[], Any], where: str) -> Any:
    try:
        return call()
    except ConfigError:
        raise
    except FunctrainError as error:
        raise ConfigError(str(error).strip().splitlines()[0], where) from error
    except (OSError, TypeError, ValueError, LookupError, RuntimeError) as error:
        message = " ".join(str(error).split())
        frames = traceback.extract_tb(error.__traceback__)  # the first one is here
        place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if len(frames) > 1 else ""
        raise ConfigError(f"{type(error).__name__}: {message}{place}", where) from error


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
        below = [each.name for each in pkgutil.iter_modules(getattr(found, "__path__", []))]
        if not hasattr(found, name) and name not in below:
            owner = getattr(found, "__name__", repr(found))
            hint = nearest(name, [*dir(found), *below])
            raise ConfigError(f"{path!r}: {owner} has no {name!r}{hint}", where)
        found = getattr(found, name, module)  # a module that is not imported yet counts as one
    if inspect.ismodule(found):
        raise ConfigError(f"{path!r} is a module; name an object in it", where)
    return found
