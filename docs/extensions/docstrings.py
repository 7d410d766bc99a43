"""Adapt docstrings for the reference: roles become code, attrs classes get signatures."""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Any

import attrs
import griffe

_ROLE = re.compile(r":(?:class|func|meth|mod|attr|data):`~?([^`]+)`")


class Docstrings(griffe.Extension):
    """Show ``:class:`X``` as code, and give attrs classes the signature of their constructor."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the roles of a docstring."""
        if obj.docstring is not None:
            obj.docstring.value = _ROLE.sub(r"`\1`", obj.docstring.value)

    def on_class(self, *, cls: griffe.Class, **kwargs: Any) -> None:
        """Give an attrs class the signature it has when it is called."""
        if "__init__" in cls.members or not any("attrs." in str(d.value) for d in cls.decorators):
            return
        found = getattr(importlib.import_module(cls.module.path), cls.name, None)
        if found is not None and attrs.has(found):
            taken = [griffe.Parameter("self", kind=griffe.ParameterKind.positional_or_keyword)]
            taken += [_parameter(each) for each in inspect.signature(found).parameters.values()]
            init = griffe.Function("__init__", parameters=griffe.Parameters(*taken))
            cls.set_member("__init__", init)


def _parameter(given: inspect.Parameter) -> griffe.Parameter:
    kind = getattr(griffe.ParameterKind, given.kind.name.lower())
    annotation = None if given.annotation is given.empty else str(given.annotation)
    return griffe.Parameter(given.name, annotation=annotation, kind=kind, default=_default(given))


def _default(given: inspect.Parameter) -> str | None:
    """Return the default as source code, or ``...`` if each object gets a new one."""
    if given.default is given.empty:
        return None
    shown = repr(given.default)
    return "..." if shown.startswith(("NOTHING", "<")) else shown
