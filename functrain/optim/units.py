"""How much of a model an optimizer must see to update one of its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

from functrain.core.optimizer import Optimizer, Params
from functrain.optim.groups import Groups

Unit: TypeAlias = Literal["element", "leaf", "all"]
"""The smallest part that is updated without regard to the rest."""

_ORDER: tuple[Unit, ...] = ("element", "leaf", "all")


def units(optimizer: Optimizer, params: Params) -> dict[str, Unit]:
    """Return the unit of each parameter.

    An optimizer says so by an attribute ``elementwise`` or ``leafwise``, neither of which is part
    of the protocol; without them it may look at all parameters. A wrapper speaks for itself, and
    the larger unit of it and the optimizer inside counts.

    Example:
        >>> import torch
        >>> from functrain.optim import LAMB, AdamW, from_torch, groups
        >>> params = {"weight": torch.zeros(2, 2), "bias": torch.zeros(2)}
        >>> units(groups([("bias", AdamW()), ("*", LAMB())]), params)
        {'weight': 'leaf', 'bias': 'element'}
        >>> units(from_torch(torch.optim.Adafactor), params)
        {'weight': 'all', 'bias': 'all'}
    """
    if isinstance(optimizer, Groups):
        members = dict(optimizer.members)
        assignment = optimizer.assignment or optimizer.assign(params)
        own = {name: _of(params, assignment, name) for name in members}
        by_member = {name: units(member, own[name]) for name, member in members.items()}
        return {path: by_member[assignment[path]][path] for path in params}
    unit = _own(optimizer)
    inner = getattr(optimizer, "optimizer", None)
    if isinstance(inner, Optimizer):
        within = units(inner, params)
        return {path: max(unit, within[path], key=_ORDER.index) for path in params}
    return dict.fromkeys(params, unit)


def _own(optimizer: Optimizer) -> Unit:
    if getattr(optimizer, "elementwise", False):
        return "element"
    return "leaf" if getattr(optimizer, "leafwise", False) else "all"


def _of(params: Params, assignment: Mapping[str, str], name: str) -> Params:
    return {path: param for path, param in params.items() if assignment[path] == name}
