"""Update parameters where their optimizer state is, and the average where that is."""

from __future__ import annotations

from typing import Any

from functrain.core.ema import Average
from functrain.core.optimizer import Optimizer
from functrain.core.state import Tensors
from functrain.distributed.exchange import Exchange
from functrain.distributed.gradients import by_dtype
from functrain.distributed.placed import Placed
from functrain.distributed.placement import Division


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
