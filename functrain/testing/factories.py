"""Get the run to check from a function, the name of one, or the arguments themselves."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import attrs

from functrain.core.protocol import AnyProgram
from functrain.errors import ConfigurationError

# Returns the keyword arguments of ``fit``, or a program; or is one of these.
Make: TypeAlias = Callable[[], Any] | str | Mapping[str, Any] | tuple[AnyProgram, Any] | AnyProgram


@attrs.frozen
class Importable:
    """The location of a function that another process can import."""

    module: str
    name: str
    file: str | None

    def load(self) -> Callable[[], Any]:
        """Import the function."""
        module = _imported(self.module, self.file)
        found = getattr(module, self.name, None)
        if not callable(found):
            raise ConfigurationError(f"{self.module} has no function {self.name!r} to call")
        return found  # type: ignore[no-any-return]


def importable(make: Make) -> Importable:
    """Find out how another process can import a function.

    ``make`` is a function at the top level of a module, or ``"module:name"``.

    Example:
        >>> importable("package.module:make_run")
        Importable(module='package.module', name='make_run', file=None)
    """
    if isinstance(make, str):
        module, _, name = make.partition(":")
        if not name:
            raise ConfigurationError(f'{make!r} names no function: write "module:name"')
        return Importable(module, name, None)
    name = getattr(make, "__qualname__", "")
    at_top = getattr(sys.modules.get(getattr(make, "__module__", "")), name, None) is make
    if not inspect.isfunction(make) or not at_top:
        raise ConfigurationError(
            f"a fresh process cannot import {make!r}. Give a function at the top level of a "
            'module, or its name as "module:name", that takes nothing and makes the run'
        )
    return Importable(make.__module__, name, inspect.getsourcefile(make))


def is_importable(make: Make) -> bool:
    """Return whether :func:`importable` succeeds."""
    try:
        importable(make)
    except ConfigurationError:
        return False
    return True


def fit_arguments(make: Make) -> dict[str, Any]:
    """Return the keyword arguments of ``fit``, or ``{"program": program}``.

    A function is called, and a name imported; anything else is copied, so that each run has data
    and listeners in their initial state.
    """
    if isinstance(make, str):
        make = importable(make).load()
    given = _copied(make) if isinstance(make, Mapping | tuple | AnyProgram) else make()
    if isinstance(given, AnyProgram):
        return {"program": given}
    if isinstance(given, tuple) and len(given) == 2:
        return dict(zip(("program", "data"), given, strict=True))
    if isinstance(given, Mapping) and "program" in given:
        return dict(given)
    raise ConfigurationError(
        "expected the keyword arguments of functrain.fit as a dict (program, data, ...), or "
        f"(program, data), got {type(given).__name__}"
    )


def _copied(given: Any) -> Any:
    if isinstance(given, AnyProgram):
        return given
    pairs = given.items() if isinstance(given, Mapping) else enumerate(given)
    try:
        own = {k: v if isinstance(v, AnyProgram) else copy.deepcopy(v) for k, v in pairs}
    except (TypeError, RuntimeError) as error:
        raise ConfigurationError(
            f"the arguments cannot be copied ({error}). Give a function that returns them"
        ) from error
    return own if isinstance(given, Mapping) else tuple(own.values())


def _imported(name: str, file: str | None) -> Any:
    if name in sys.modules and name != "__main__":
        return sys.modules[name]
    if file is None:
        return importlib.import_module(name)
    # Import by path: the names of test modules depend on how pytest imports them.
    sys.path.insert(0, str(Path(file).parent))
    alias = "__functrain_made__" if name == "__main__" else name
    spec = importlib.util.spec_from_file_location(alias, file)
    if spec is None or spec.loader is None:
        raise ConfigurationError(f"{file} is no Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[alias] = module
    spec.loader.exec_module(module)
    return module
