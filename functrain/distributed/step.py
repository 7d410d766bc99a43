"""The device part of a step on several ranks: that of ``core/step.py``, on local tensors."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import attrs

from functrain.core import step
from functrain.core.batch import Batch
from functrain.core.batch_splitting import MicroBatches, split_step
from functrain.core.ema import Average
from functrain.core.gradients import Gradients
from functrain.core.optimizer import Optimizer
from functrain.core.recipe import StaticParts
from functrain.core.rng import scoped
from functrain.core.state import Donation, Tensors, TrainState
from functrain.data.batch_parts import BatchParts, Sharing, shared
from functrain.distributed.exchange import Exchange
from functrain.distributed.gradients import ShardedGradients, by_dtype
from functrain.distributed.placed import Placed
from functrain.distributed.placement import Division
from functrain.distributed.step_facts import digest_of, digests_of
from functrain.errors import UnsupportedError
from functrain.tree.placed import require_all_ranks


@attrs.frozen(eq=False)
class ShardedStep:
    """A device step whose parts are computed by several ranks."""

    fixed: StaticParts
    gradients: ShardedGradients
    sharing: Sharing

    @property
    def description(self) -> str:
        """A text that tells its numbers from those of other ways to make the step."""
        return "eager"

    @property
    def placed(self) -> Placed:
        """The places of the tensors."""
        return self.gradients.placed

    def place(self, state: TrainState) -> TrainState:
        """Return a state with this rank's rows of the leaves that are cut."""
        world = self.gradients.world
        with world.failing_together():
            state = self.placed.gathered(state)
            if world.size > 1:
                world.require_equal(digests_of(state))
            return self.placed.place(state)

    def gathered(self, state: TrainState) -> TrainState:
        """Return a state with whole leaves."""
        with self.gradients.world.failing_together():
            return self.placed.gathered(state)

    def refuse_unplaced(self, state: TrainState) -> None:
        """Refuse a state whose leaves are not where the program's are."""
        with self.gradients.world.failing_together():
            if not self.placed.fits(state):
                raise UnsupportedError(
                    "expected a state placed as functrain.sharded asks, got one placed otherwise. "
                    "Call program.place(state) on every rank"
                )

    def shared(self, batch: Batch, accumulate: int) -> BatchParts:
        """Return this rank's parts of a step's batch; see :func:`.split_step`."""
        with self.gradients.world.failing_together():
            if isinstance(batch, BatchParts):
                return shared(batch, self.sharing)
            digest = digest_of(batch) if self.sharing.ranks > 1 else 0
            if isinstance(batch, MicroBatches) or accumulate < 2:
                return attrs.evolve(shared(batch, self.sharing), digest=digest)
            given = split_step(batch, accumulate)
            found = shared(MicroBatches(given.parts), self.sharing)
            consumed, empty = given.consumed, given.empty
            return attrs.evolve(found, consumed=consumed, empty=empty, digest=digest)

    def __call__(
        self,
        state: step.DeviceState,
        batches: Any,
        lr: Any,
        ema_due: bool,
        donation: Donation | None = None,
        seed: int | None = None,
    ) -> tuple[step.DeviceState, step.Outputs]:
        """See :class:`functrain.core.step.AnyDeviceStep`; ``batches`` are :class:`BatchParts`."""
        self._require_all_ranks()
        with self.gradients.world.failing_together():
            own = {name: self.placed.local(name, part) for name, part in state.items()}
            device_step = step.DeviceStep(self._kernels(), self.fixed)
            new, outputs = device_step(own, batches, lr, ema_due, donation, seed)
        placed = self.placed.wrapped
        return {name: placed(name, part, state[name]) for name, part in new.items()}, outputs

    def all_gradients(
        self, state: step.DeviceState, batch: BatchParts, seed: int, locate: bool = False
    ) -> tuple[Tensors, str | None]:
        """Return whole gradients, and where the first value that is not finite is from."""
        self._require_all_ranks()
        place = None
        with self.gradients.world.failing_together():
            own = {name: self.placed.local(name, part) for name, part in state.items()}
            device = next(iter(own["params"].values())).device
            with scoped(seed, device, draws=self.fixed.draws):
                compute = functools.partial(self.gradients, own, batch, seed=seed)
                if locate:
                    found, place = self._located(own, batch, compute)
                else:
                    found = compute()
            grads = found.grads
            cut = {path: rows for path, rows in self.placed.updated.items() if path in grads}
            for division in by_dtype(cut, grads):
                grads = {**grads, **self.placed.exchange.whole(grads, division)}
            return grads, place

    def _located(
        self, state: step.DeviceState, batch: BatchParts, compute: Callable[[], Gradients]
    ) -> tuple[Gradients, str]:
        """Repeat a step, and tell all ranks what the first that found something has found."""
        from functrain.diagnosis import anomaly

        parts = list(batch.parts.values())
        found, own = anomaly.located(self.fixed.model.module, state, parts, compute)
        places = self.gradients.world.gathered(own)
        rank = next((r for r, place in enumerate(places) if place != anomaly.NOWHERE), 0)
        return found, f"{places[rank]} on rank {rank}" if self.sharing.ranks > 1 else own

    def _require_all_ranks(self) -> None:
        if self.sharing.ranks > 1:
            require_all_ranks("a step of a sharded program")

    def _kernels(self) -> step.Kernels:
        return step.EAGER._replace(
            gradients=lambda fixed, *given: self.gradients(*given),
            update=functools.partial(updated, self.placed),
            average=functools.partial(averaged, self.placed),
        )


def updated(
    placed: Placed, optimizer: Optimizer, grads: Tensors, state: Any, params: Tensors, lr: Any
) -> tuple[Tensors, Any]:
    """Update this rank's rows of parameters in place, and send them where they are stored.

    An optimizer sees every parameter on every rank, so that its counters are the same everywhere;
    of one that another rank updates it sees no rows.
    """
    stored, target = placed.rows_of("params"), placed.updated
    own = _moved(placed.exchange, params, stored, target)
    optimizer.update_(grads, state, own, lr)
    away = {path: params[path] for path in params if target.get(path) != stored.get(path)}
    for path, leaf in _moved(placed.exchange, {p: own[p] for p in away}, target, stored).items():
        params[path].copy_(leaf)
    return params, state


def averaged(
    placed: Placed, ema: Average, average: dict[str, Any], params: Tensors, due: bool
) -> dict[str, Any]:
    """Move this rank's part of the average in place."""
    if ema.moves_on_host(average, due) is False:
        return average
    stored, target = placed.rows_of("params"), placed.rows_of("ema")
    own = {path: params[path] for path in average["params"]}
    ema.update_(average, _moved(placed.exchange, own, stored, target), due)
    return average


def _moved(exchange: Exchange, params: Tensors, source: Division, target: Division) -> Tensors:
    """Return leaves under another division; views where this rank has the rows already."""
    found: Tensors = dict(params)
    moving = {path for path in params if source.get(path) != target.get(path)}
    for path in moving - source.keys():
        found[path] = params[path][target[path].on(exchange.rank)]
    whole = {path: rows for path, rows in source.items() if path in moving - target.keys()}
    for division in by_dtype(whole, params):
        found.update(exchange.whole(params, division))
    both = {path: rows for path, rows in target.items() if path in moving & source.keys()}
    for division in by_dtype(both, params):
        found.update(exchange.moved(params, source, division))
    return found
