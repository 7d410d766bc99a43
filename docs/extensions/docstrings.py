"""Adapt the package for the reference: its docstrings, signatures and names."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from typing import Any

import attrs
import griffe

_ROLE = re.compile(r":(?:class|func|meth|mod|attr|data):`~?([^`]+)`")
# Only a section of this name is shown as code; one called Example is a quotation.
_EXAMPLE = re.compile(r"^Example:$", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Show roles and examples as code, attrs classes as they are called, and every public name."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the roles and the heading of the examples of a docstring."""
        if obj.docstring is not None:
            text = _ROLE.sub(r"`\1`", obj.docstring.value)
            obj.docstring.value = _EXAMPLE.sub("Examples:", text)

    def on_package(self, *, pkg: griffe.Module, loader: griffe.GriffeLoader, **kwargs: Any) -> None:
        """Let a function win over the module of the same name, as it does in an import."""
        loader.resolve_aliases(implicit=True, external=False)
        for module in [pkg, *_submodules(pkg)]:
            for name in _exports(module):
                inner = module.members.get(name)
                if isinstance(inner, griffe.Module) and name in inner.members:
                    target = inner.members[name]
                    module.members[name] = griffe.Alias(name, target, parent=module)

    def on_class(self, *, cls: griffe.Class, **kwargs: Any) -> None:
        """Give an attrs class the signature it has when it is called."""
        if "__init__" in cls.members or not any("attrs." in str(d.value) for d in cls.decorators):
            return
        found = getattr(importlib.import_module(cls.module.path), cls.name, None)
        if found is not None and attrs.has(found):
            taken = [griffe.Parameter("self", kind=griffe.ParameterKind.positional_or_keyword)]
            types = {one.alias: one.type for one in attrs.fields(found)}
            given = inspect.signature(found).parameters
            taken += [_parameter(one, types[name]) for name, one in given.items()]
            init = griffe.Function("__init__", parameters=griffe.Parameters(*taken))
            cls.set_member("__init__", init)


def _submodules(module: griffe.Module) -> Iterator[griffe.Module]:
    for inner in [one for one in module.modules.values() if not one.is_alias]:
        yield inner
        yield from _submodules(inner)


def _exports(module: griffe.Module) -> list[str]:
    return [str(name) for name in module.exports or ()]


def _parameter(given: inspect.Parameter, field_type: Any) -> griffe.Parameter:
    kind = getattr(griffe.ParameterKind, given.kind.name.lower())
    annotation = None if given.annotation is given.empty else str(given.annotation)
    if annotation == "Any":  # of a converter that accepts anything
        annotation = str(field_type)
    return griffe.Parameter(given.name, annotation=annotation, kind=kind, default=_default(given))


def _default(given: inspect.Parameter) -> str | None:
    """Return the default as source code, or ``...`` if each object gets a new one."""
    if given.default is given.empty:
        return None
    shown = repr(given.default)
    return "..." if shown.startswith(("NOTHING", "<")) else shown
