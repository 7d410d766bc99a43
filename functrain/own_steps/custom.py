"""``functrain.custom``: a program of pure functions of the user over any tree."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain import tree
from functrain.core.batch import Batch
from functrain.core.first_step import require_state
from functrain.core.loss import Metrics
from functrain.core.recipe import Nonfinite
from functrain.core.rng import Rng, checked_seed
from functrain.core.state import Counters
from functrain.errors import NonFiniteError
from functrain.errors.calls import explained
from functrain.errors.validators import one_of
from functrain.own_steps import results
from functrain.own_steps.program import OwnProgram, OwnRecipe, initial
from functrain.own_steps.states import CustomState, device_of
from functrain.own_steps.versions import Versions
from functrain.tree.nodes import copy


@attrs.frozen(eq=False, repr=False)
class Custom(OwnProgram):
    """A program made by :func:`functrain.custom`.

    Attributes:
        begin: ``init(seed)`` of the user.
        nonfinite: ``raise``, ``skip`` or ``ignore`` a step whose loss is not finite.
    """

    begin: Callable[[int], Any] = attrs.field(kw_only=True)
    nonfinite: Nonfinite = attrs.field(default="raise", kw_only=True)

    @property
    def recipe(self) -> OwnRecipe:
        """The functions that the program was made of."""
        functions = {"init": self.begin, "step": self.step, "evaluate": self.evaluate}
        return OwnRecipe(functions=functions, nonfinite=self.nonfinite)

    def init(self, seed: int = 0, device: torch.device | str | None = None) -> CustomState:
        """Return the state before the first step.

        Args:
            seed: root of all randomness; the user's ``init`` receives it, too.
            device: where its tensors go; by default they stay where ``init`` makes them.

        Raises:
            StepResultError: a leaf of the tree is nothing that a checkpoint can hold.
        """
        seed = checked_seed(seed)
        made = initial(seed, self.begin)
        results.check_leaves(made, "init(seed)")

        def own(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            return leaf.detach().to(leaf.device if device is None else device, copy=True)

        made = tree.map(own, copy(made))
        return CustomState(made, Rng(seed), Counters.initial(device_of(made)))

    def require(self, state: object, batch: Batch = None) -> None:
        """Refuse anything but a state of such a program."""
        require_state(state, batch, CustomState)

    def advanced(self, state: Any, batch: Batch, rng: torch.Generator) -> tuple[Any, Any]:
        """Call the user's step, and check what it did and returned."""
        versions = Versions(state.tree, "state.tree")
        new, metrics = results.pair(self.step(state.tree, batch, rng), "train_step", "tree")
        versions.refuse_writes("train_step")
        new = results.detached(new)
        results.check_like(state.tree, new, "state.tree", "train_step")
        return attrs.evolve(state, tree=new), metrics

    def accepted(self, before: Any, after: Any, metrics: Metrics) -> Any:
        """Return the next state, or that of before a step to be skipped."""
        if self.nonfinite == "ignore" or "loss" not in metrics:
            return after
        loss, counters = metrics["loss"].item(), before.counters
        if math.isfinite(loss):
            return after
        if self.nonfinite == "raise":
            raise NonFiniteError(counters.step, loss, [], own_step=True)
        skipped = attrs.evolve(counters, skipped=counters.skipped + 1)
        return attrs.evolve(before, counters=skipped)

    def assessed(self, state: Any, batch: Batch, rng: torch.Generator) -> Any:
        """Call the user's evaluation, and check that it wrote to nothing."""
        assert self.evaluate is not None
        versions = Versions(state.tree, "state.tree")
        found = self.evaluate(state.tree, batch, rng)
        versions.refuse_writes("eval_step")
        return found


@explained
def custom(
    init: Callable[[int], Any],
    train_step: Callable[[Any, Any, torch.Generator], tuple[Any, Any]],
    eval_step: Callable[[Any, Any, torch.Generator], Any] | None = None,
    *,
    nonfinite: Nonfinite = "raise",
) -> Custom:
    """Make a program of your own pure functions over a tree of tensors.

    ``fit``, ``iterate``, ``evaluate``, checkpoints, listeners and checks take it like any other.
    The state is the tree with a root seed and counters: ``state.tree``, ``state.rng`` and
    ``state.counters``. Torch's global generators are seeded for each call, too.

    Args:
        init: ``init(seed)`` returns the tree: tensors, numbers and text in dicts, lists, tuples,
            named tuples or attrs classes.
        train_step: ``train_step(tree, batch, rng)`` returns (the next tree, metrics by name). The
            next tree has the structure, dtypes and shapes of the tree, which must not be written
            to. ``rng`` is a ``torch.Generator`` on the device of the state, seeded for this step.
        eval_step: ``eval_step(tree, batch, rng)`` returns metrics by name, a scalar loss, or a
            :class:`functrain.Loss` with the weight of the batch.
        nonfinite: what a step with a NaN or infinite metric ``loss`` does: ``"raise"``, ``"skip"``
            (keeps the tree, and counts the step as skipped) or ``"ignore"``.

    Returns:
        The program.

    Raises:
        ConfigurationError: a function takes other arguments, or ``nonfinite`` is something else.

    Example:
        >>> import functrain as ft, torch
        >>> def init(seed):
        ...     return {"mean": torch.zeros(2), "count": 0}
        >>> def train_step(tree, batch, rng):
        ...     count = tree["count"] + len(batch)
        ...     mean = tree["mean"] + (batch - tree["mean"]).sum(0) / count
        ...     return {"mean": mean, "count": count}, {"norm": mean.norm()}
        >>> program = ft.custom(init, train_step)
        >>> run = ft.fit(program, [torch.ones(4, 2), 3 * torch.ones(4, 2)], until="1 epoch")
        >>> run.state.tree["mean"], run.state.counters.samples
        (tensor([2., 2.]), 8)
    """
    results.check_function(init, "init", ("seed",))
    results.check_function(train_step, "train_step", ("tree", "batch", "rng"))
    if eval_step is not None:
        results.check_function(eval_step, "eval_step", ("tree", "batch", "rng"))
    one_of(Nonfinite).check("nonfinite", nonfinite)
    return Custom(train_step, eval_step, begin=init, nonfinite=nonfinite)
