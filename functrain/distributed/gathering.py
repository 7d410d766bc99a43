"""Losses, metrics and buffers of all parts of a step, in the order of the parts."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

from functrain.core.buffers import (
    BufferRule,
    Statistic,
    by_rule,
    not_combined,
    statistics_after,
)
from functrain.core.loss import Outcome
from functrain.core.state import Tensors
from functrain.distributed.group import World
from functrain.distributed.step_facts import Facts, same


def table_of(rows: Sequence[Sequence[Tensor]], like: Tensor) -> Tensor:
    """Return scalars as one vector of float64, which holds narrower dtypes exactly."""
    found = [one.detach().double() for row in rows for one in row]
    return torch.stack(found) if found else like.new_empty(0, dtype=torch.float64)


def outcomes_of(
    world: World, own: Sequence[Outcome], facts: Facts, table: Tensor
) -> tuple[list[Outcome], list[Tensor]]:
    """Return outcome and weight of each part of the step, from a table with a row for each."""
    dtypes = [(name, dtype) for name, dtype in facts.dtypes if dtype is not None]
    values: list[dict[str, Any]] = [
        {name: value.to(dtype) for (name, dtype), value in zip(dtypes, row, strict=True)}
        for row in table
    ]
    objects = [name for name, dtype in facts.metrics if dtype is None]
    if objects:
        mine = [{name: one.metrics[name] for name in objects} for one in own]
        every = itertools.chain.from_iterable(world.gathered(mine))
        values = [{**scalars, **others} for scalars, others in zip(values, every, strict=True)]
    names = [name for name, _ in facts.metrics]
    outcomes = [Outcome(one["loss"], None, {name: one[name] for name in names}) for one in values]
    return outcomes, [one["weight"] for one in values]


def buffers_of(before: Tensors, changed: Sequence[str], parts: Tensor, count: int) -> list[Tensors]:
    """Return the changed buffers after each part of the step, from their bytes, part after part."""
    lengths = [before[path].nbytes for path in changed]
    return [
        {
            path: piece.clone().view(before[path].dtype).view(before[path].shape)
            for path, piece in zip(changed, torch.split(part, lengths), strict=True)
        }
        for part in parts.view(count, -1)
    ]


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
        rule = rule_of(path, rules)
        if rule is not None or path not in known:
            found[path] = combined_value(path, before[path], values, rule)
    return {path: found[path] for path in before}


def rule_of(path: str, rules: Mapping[str, BufferRule]) -> BufferRule | None:
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
        if bounds[-1] > 1 and rule_of(path, rules) != "first":
            raise not_combined(path, "its shape or dtype changes in the forward")
    mine = {path: own[0][path].detach().cpu() for path in paths} if own else None
    every = [one for one in world.gathered(mine) if one is not None]
    return own[0] if own and len(every) == 1 else every[0]


def combined_value(
    path: str, before: Tensor, each: Sequence[Tensor], rule: BufferRule | None
) -> Tensor:
    """Return one buffer; a value on which all parts agree is taken as it is, unless summed."""
    averages = before.is_floating_point() or before.is_complex()
    counts = not averages and before.dtype is not torch.bool
    adds_up = rule == "sum" or (rule is None and counts)
    if not adds_up and all(same(one, each[0]) for one in each):
        return each[0]
    return by_rule(path, before, each, rule)
