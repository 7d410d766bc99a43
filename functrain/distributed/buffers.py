"""The buffers of all parts of a step, and how they are combined."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from functrain.core.buffers import Statistic, statistics_after, summed
from functrain.core.state import Tensors
from functrain.distributed.group import World
from functrain.distributed.step_facts import same
from functrain.errors import UnsupportedError

BufferRule: TypeAlias = Literal["mean", "sum", "first"]
"""``mean`` of the values of all parts; ``sum`` of their increments; the value of the ``first``."""


def combined(
    statistics: Mapping[str, Statistic],
    rules: Mapping[str, BufferRule],
    before: Tensors,
    each: Sequence[Tensors],
) -> Tensors:
    """Return the buffers after a step from those after each part.

    Rules by pattern go before what is known of batch norms; the first that matches counts.
    """
    if len(each) == 1:
        return {**before, **each[0]}
    after = {path: [part[path] for part in each] for path in each[0]}
    norms = {path: one for path, one in statistics.items() if {path, one.counter} & after.keys()}
    whole = [{**before, **part} for part in each]
    found = {**before, **statistics_after(norms, before, whole)}
    known = {*norms, *(one.counter for one in norms.values())}
    for path, values in after.items():
        rule = _rule_of(path, rules)
        if rule is not None or path not in known:
            found[path] = by_rule(path, before[path], values, rule)
    return {path: found[path] for path in before}


def _rule_of(path: str, rules: Mapping[str, BufferRule]) -> BufferRule | None:
    """Return the rule of the first pattern that matches."""
    return next((rule for pattern, rule in rules.items() if fnmatchcase(path, pattern)), None)


def first_of(
    world: World,
    rules: Mapping[str, BufferRule],
    own: Sequence[Tensors],
    paths: Sequence[str],
    bounds: Sequence[int],
) -> Tensors:
    """Return buffers whose shape or dtype the forward changes: those of the first part."""
    for path in paths:
        if bounds[-1] > 1 and _rule_of(path, rules) != "first":
            raise _not_combined(path, "its shape or dtype changes in the forward")
    mine = {path: own[0][path].detach().cpu() for path in paths} if own else None
    every = [one for one in world.gathered(mine) if one is not None]
    return own[0] if own and len(every) == 1 else every[0]


def by_rule(path: str, old: Tensor, each: Sequence[Tensor], rule: BufferRule | None) -> Tensor:
    """Return a buffer of which only its values are known.

    ``each`` is from ``old``, after each part. A value on which all parts agree is taken as it is,
    unless it is summed. A rule of ``None`` takes the mean of floating-point buffers and the sum of
    integer ones.
    """
    averages = old.is_floating_point() or old.is_complex()
    adds_up = rule == "sum" or (rule is None and not averages and old.dtype is not torch.bool)
    if not adds_up and all(same(one, each[0]) for one in each):
        return each[0]
    if any(value.shape != old.shape or value.dtype != old.dtype for value in each):
        raise _not_combined(path, f"its shape or dtype changed from {list(old.shape)} {old.dtype}")
    if rule == "first":
        return each[0]
    if old.dtype is torch.bool or (rule == "mean" and not averages):
        raise _not_combined(path, f"the parts of the step left other values of {old.dtype} in it")
    return summed(old, each) if adds_up else functools.reduce(operator.add, each) / len(each)


def _not_combined(path: str, reason: str) -> UnsupportedError:
    return UnsupportedError(
        f"buffer {path!r} cannot be combined over the parts of a step: {reason}. Say which value "
        'counts, functrain.sharded(..., buffers={"' + path + '": "first"}), or train with parts=1'
    )
