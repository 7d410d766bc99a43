"""The state before the first step."""

from __future__ import annotations

from typing import Any

import torch

from functrain.core import learning_rate, precision
from functrain.core.pretrained import Patterns, Rename, load
from functrain.core.recipe import StaticParts
from functrain.core.rng import Rng, checked_seed
from functrain.core.state import Counters, TrainState
from functrain.errors import ConfigurationError


def initial_state(
    fixed: StaticParts,
    schedules: learning_rate.Schedules,
    seed: int,
    params: Any,
    device: torch.device | str | None,
    only: Patterns | None,
    rename: Rename | None,
) -> TrainState:
    """Return the state before the first step; see :meth:`functrain.Program.init`."""
    seed = checked_seed(seed)
    own, buffers = fixed.model.initial(seed)
    if params is not None:
        loaded = load(fixed.model, {**own, **buffers}, params, only, rename)
        own, buffers = {p: loaded[p] for p in own}, {b: loaded[b] for b in buffers}
    elif only is not None or rename is not None:
        raise ConfigurationError("only and rename choose among params: give params, too")
    if device is not None:
        own = {path: tensor.to(device) for path, tensor in own.items()}
        buffers = {path: tensor.to(device) for path, tensor in buffers.items()}
    where = next(iter(own.values())).device
    trained = {path: own[path] for path in fixed.trainable}
    recipe = fixed.recipe
    return TrainState(
        params=own,
        buffers=buffers,
        optimizer=recipe.optimizer.init(trained),
        scheduler=learning_rate.init(schedules),
        ema=None if recipe.ema is None else recipe.ema.init(trained),
        loss_scale=precision.initial_loss_scale(recipe.precision, where),
        rng=Rng(seed),
        counters=Counters.initial(where),
    )
