"""Sharding: the same step, computed by several processes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from fnmatch import fnmatchcase

import attrs
from torch import nn

from functrain.core import step
from functrain.core.program import Program
from functrain.core.protocol import require_one_step, require_plain
from functrain.data.batch_parts import Sharing
from functrain.distributed.buffers import BufferRule
from functrain.distributed.exchange import Exchange
from functrain.distributed.group import World, current
from functrain.distributed.placement import Placement
from functrain.errors import ConfigurationError
from functrain.errors.calls import explained
from functrain.errors.nearest import nearest
from functrain.errors.validators import integer, one_of
from functrain.optim.units import units


@explained
def sharded(
    program: Program,
    placement: Placement | None = None,
    *,
    parts: int | None = None,
    buffers: Mapping[str, BufferRule] | None = None,
    timeout: float | timedelta | None = None,
) -> Program:
    """Return a program whose steps are computed by all processes that were started together.

    Every batch is cut into ``parts``. Their number alone decides the result: the state after a step
    is the same to the bit for any number of processes up to ``parts``, and for any placement. Call
    everything on every rank in the same order, and give ``train_step`` the global batch.

    Args:
        program: an eager program; ``donated`` goes around the result.
        placement: where the tensors of a state are; by default every rank has all of them.
        parts: into how many parts each batch is cut; by default one for each process. It belongs
            to the recipe: give it, if a run may go on with another number of processes.
        buffers: how buffers that forwards change are combined over the parts, by pattern (as in
            ``fnmatch``): ``"mean"``, ``"sum"`` (of the increments) or ``"first"``. By default
            batch norm's statistics are those of the parts one after another, integers are summed,
            and other floating-point buffers averaged.
        timeout: seconds after which a rank that does not answer is an error; see
            :func:`functrain.distributed.current`.

    Returns:
        The sharded program. Its ``place`` and ``gathered`` convert states.

    Raises:
        ConfigurationError: there are more processes than parts, the placement does not fit them, or
            the program is no eager one.
        ProcessGroupError: the other processes cannot be reached.

    Example:
        >>> import functrain as ft, torch
        >>> loss = lambda model, batch: (model(batch) ** 2).mean()
        >>> plain = ft.program(torch.nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.1))
        >>> program = ft.sharded(plain, ft.Placement(shard="all"), parts=4)
        >>> state, metrics = program.train_step(program.init(), torch.ones(8, 2))
        >>> state.counters.samples
        8
    """
    # DTensor takes long to import, and most programs are not sharded.
    from functrain.distributed.gradients import ShardedGradients
    from functrain.distributed.placed import Placed
    from functrain.distributed.step import ShardedStep

    require_plain(program, "sharded")
    require_one_step(program, "sharded")
    if not step.is_eager(program.device_step):
        raise ConfigurationError(
            "sharded: expected an eager program, got one that is compiled or sharded already. "
            "Leave the other transformation away"
        )
    placement = Placement() if placement is None else placement
    rules = dict(buffers or {})
    _check_rules(rules, program.fixed.model.buffers)
    world = current(timeout)
    parts = world.size if parts is None else parts
    _check_sizes(world, placement, parts)
    if parts > 1:
        _refuse_synchronized(program.fixed.model.module)
    recipe = attrs.evolve(program.recipe, parts=parts, buffers=rules)
    fixed = attrs.evolve(program.fixed, recipe=recipe)
    model = fixed.model
    trained = {path: model.params[path] for path in fixed.trainable}
    device = next(iter(model.params.values())).device
    exchange = Exchange(world)
    placed = Placed.of(placement, exchange, trained, units(recipe.optimizer, trained), device.type)
    gradients = ShardedGradients(fixed, world, placed, rules)
    sharing = Sharing(parts, world.rank, world.size)
    made = ShardedStep(fixed, gradients, sharing)
    return attrs.evolve(program, fixed=fixed, device_step=made, sharded=made)


def _check_rules(rules: Mapping[str, BufferRule], paths: Iterable[str]) -> None:
    """Refuse an unknown rule, and a pattern that a typing mistake keeps from matching."""
    for pattern, rule in rules.items():
        one_of(BufferRule).check(f"buffers[{pattern!r}]", rule)
        if not any(fnmatchcase(path, pattern) for path in paths):
            raise ConfigurationError(
                f"buffers: expected patterns of buffers, got {pattern!r}, which matches none"
                f"{nearest(pattern, paths)}"
            )


def _check_sizes(world: World, placement: Placement, parts: int) -> None:
    """Refuse a placement for another number of processes, and more processes than parts."""
    if placement.data not in (-1, world.size):
        raise ConfigurationError(
            f"placement.data: expected {world.size}, the number of processes, or -1, got "
            f"{placement.data}"
        )
    integer(minimum=1).check("parts", parts)
    if world.size > parts:
        raise ConfigurationError(
            f"parts: expected {world.size} or more, one for each process, got {parts}. Start at "
            f"most {parts} processes: parts belongs to the recipe, and decides the result"
        )


def _refuse_synchronized(module: nn.Module) -> None:
    """Refuse layers that exchange something themselves, for the number of ranks changes it."""
    for path, layer in module.named_modules():
        if isinstance(layer, nn.SyncBatchNorm):
            raise ConfigurationError(
                f"sharded: expected layers that compute each part of a batch by itself, got "
                f"SyncBatchNorm at {path!r}, whose statistics depend on the number of processes. "
                "Use BatchNorm, which has those of each part, or a norm without them"
            )
