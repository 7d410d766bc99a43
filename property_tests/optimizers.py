"""Hypothesis strategies: optimizers with any of their options, and trees to train."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from functrain import optim

Leaves = dict[str, Tensor]

decays = st.sampled_from([0.0, 0.01, 0.3])
flags = st.booleans()
betas = st.sampled_from([(0.9, 0.999), (0.5, 0.9), (0.95, 0.8)])
epsilons = st.sampled_from([1e-8, 1e-3])

_ADAM = {"betas": betas, "eps": epsilons, "weight_decay": decays, "maximize": flags}
_FREE = {
    "weight_decay": decays,
    "warmup_steps": st.integers(0, 3),
    "r": st.sampled_from([0.0, 0.5]),
    "weight_lr_power": st.sampled_from([0.0, 2.0]),
}
OPTIONS: dict[Any, dict[str, st.SearchStrategy[Any]]] = {
    optim.SGD: {
        "momentum": st.sampled_from([0.0, 0.9]),
        "dampening": st.sampled_from([0.0, 0.3]),
        "weight_decay": decays,
        "maximize": flags,
    },
    optim.Adam: {**_ADAM, "amsgrad": flags},
    optim.AdamW: {**_ADAM, "amsgrad": flags},
    optim.NAdam: {**_ADAM, "decoupled_weight_decay": flags},
    optim.RAdam: {**_ADAM, "decoupled_weight_decay": flags, "degenerated_to_sgd": flags},
    optim.RMSprop: {
        "alpha": st.sampled_from([0.99, 0.5]),
        "eps": epsilons,
        "weight_decay": decays,
        "momentum": st.sampled_from([0.0, 0.9]),
        "centered": flags,
        "maximize": flags,
    },
    optim.Adagrad: {
        "lr_decay": st.sampled_from([0.0, 0.1]),
        "weight_decay": decays,
        "initial_accumulator_value": st.sampled_from([0.0, 0.5]),
        "maximize": flags,
    },
    optim.Adadelta: {"rho": st.sampled_from([0.9, 0.5]), "weight_decay": decays, "maximize": flags},
    optim.Adamax: {"betas": betas, "weight_decay": decays, "maximize": flags},
    optim.Adafactor: {
        "beta2_decay": st.sampled_from([-0.8, -0.3]),
        "eps": st.sampled_from([(None, 1e-3), (1e-6, 0.5)]),
        "d": st.sampled_from([1.0, 2.0]),
        "weight_decay": decays,
        "maximize": flags,
    },
    optim.Lion: {"betas": betas, "weight_decay": decays, "maximize": flags},
    optim.LAMB: _ADAM,
    optim.ScheduleFreeSGD: {"momentum": st.sampled_from([0.9, 0.3]), **_FREE},
    optim.ScheduleFreeAdamW: {"betas": betas, **_FREE},
    optim.Muon: {
        "momentum": st.sampled_from([0.95, 0.5]),
        "nesterov": flags,
        "weight_decay": decays,
        "adjust_lr_fn": st.sampled_from([None, "match_rms_adamw"]),
        "ns_dtype": st.none(),
    },
}


@st.composite
def optimizers(draw: st.DrawFn, without: tuple[type, ...] = ()) -> Any:
    """An optimizer of any class, with any of its options."""
    cls = draw(st.sampled_from([cls for cls in OPTIONS if cls not in without]))
    return cls(lr=0.05, **draw(st.fixed_dictionaries(OPTIONS[cls])))


@st.composite
def shapes(draw: st.DrawFn, optimizer: Any) -> dict[str, tuple[int, ...]]:
    """Paths and shapes of one leaf or several that the optimizer can train."""
    matrices = isinstance(optimizer, optim.Muon)
    sides = st.integers(1, 5)
    shape = st.tuples(sides, sides) if matrices else st.lists(sides, max_size=4).map(tuple)
    return draw(st.dictionaries(st.sampled_from("abcdef"), shape, min_size=1, max_size=4))


def leaves(shapes: dict[str, tuple[int, ...]], seed: int, dtype: torch.dtype) -> Leaves:
    """Normal numbers, the same for a path whatever the others are."""
    return {
        path: torch.randn(
            shape,
            dtype=torch.float64,
            generator=torch.Generator().manual_seed(1000 * seed + ord(path)),
        ).to(dtype)
        for path, shape in shapes.items()
    }
