"""The contenders, by name.

Nothing of theirs is imported here: each runs in a process of its own.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import attrs

_JAX_WORKS = ("mlp", "linears", "gpt", "gpt12")


@attrs.frozen
class Contender:
    """One way to train.

    Attributes:
        name: for the command line and the budgets.
        title: for the tables.
        loop: module in this package and function: a loop over a feed.
        kind: ``"plain"``, ``"functrain"`` or ``"peer"``.
        needs: packages beside those that functrain needs.
        works: the works it is there for; by default all.
        compiles: whether its first step takes long and a cache makes it shorter.
        in_torch: whether torch allocates its memory.
    """

    name: str
    title: str
    loop: str
    kind: str = "functrain"
    needs: tuple[str, ...] = ()
    works: tuple[str, ...] = ()
    compiles: bool = False
    in_torch: bool = True

    def takes(self, work: str) -> bool:
        """Return whether this contender supports a work."""
        return not self.works or work in self.works

    def missing(self) -> list[str]:
        """Return the packages that are not installed."""
        return [name for name in self.needs if importlib.util.find_spec(name) is None]

    def function(self) -> Callable[..., Any]:
        """Import the loop."""
        module, _, name = self.loop.partition(":")
        found: Callable[..., Any] = getattr(
            importlib.import_module(f"benchmarks.steps.{module}"), name
        )
        return found


PLAIN = Contender("plain", "plain loop", "plain:plain", "plain")
_ALL = (
    PLAIN,
    Contender("plain-checked", "plain, norm and finite check", "plain:checked", "plain"),
    Contender(
        "plain-compiled", "plain, compiled + fused", "plain:compiled", "plain", compiles=True
    ),
    Contender(
        "plain-compiled-optimizer",
        "plain, compiled + compiled AdamW",
        "plain:compiled_optimizer",
        "plain",
        compiles=True,
    ),
    Contender("pure", "functrain", "programs:pure"),
    Contender("donated", "functrain, donated", "programs:donated"),
    Contender("compiled", "functrain, compiled", "programs:compiled", compiles=True),
    Contender(
        "compiled-donated",
        "functrain, compiled + donated",
        "programs:compiled_donated",
        compiles=True,
    ),
    Contender(
        "ahead-donated",
        "functrain, compiled ahead + donated",
        "programs:ahead_donated",
        compiles=True,
    ),
    Contender("fit", "functrain, fit", "programs:fit", works=("mlp",)),
    Contender("lightning", "Lightning Trainer", "trainers:lightning", "peer", ("lightning",)),
    Contender("fabric", "Lightning Fabric", "trainers:fabric", "peer", ("lightning",)),
    Contender("ignite", "Ignite", "trainers:ignite", "peer", ("ignite",)),
    Contender("accelerate", "Accelerate", "trainers:accelerate", "peer", ("accelerate",)),
    Contender("torchopt", "TorchOpt", "trainers:torchopt", "peer", ("torchopt",)),
    Contender(
        "jax",
        "JAX + optax",
        "in_jax:train",
        "peer",
        ("jax", "optax"),
        _JAX_WORKS,
        compiles=True,
        in_torch=False,
    ),
)
CONTENDERS: dict[str, Contender] = {contender.name: contender for contender in _ALL}
