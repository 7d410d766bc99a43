"""Draw models made of small blocks, with a matching loss and batches."""

from __future__ import annotations

from typing import Any

import attrs
import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

from functrain.core.constructor import program
from functrain.core.loss import Loss
from functrain.core.program import Program
from functrain.testing.strategies.blocks import KINDS
from functrain.testing.strategies.recipes import PRECISIONS, recipes

_CLASSES = 3


@attrs.frozen
class Architecture:
    """A description of a model, with its loss and batches.

    Attributes:
        kind: ``vector``, ``image`` or ``sequence``: what a sample is.
        blocks: by their names, in order.

    Example:
        >>> architecture = Architecture("vector", ("Linear", "BatchNorm"))
        >>> x, y = architecture.batch(seed=0, size=4)
        >>> architecture.loss(architecture.build(), (x, y)).value.shape
        torch.Size([])
    """

    kind: str
    blocks: tuple[str, ...] = ()

    def build(self) -> nn.Module:
        """Return a new module; its values are drawn from torch's global generator."""
        blocks, shape = KINDS[self.kind]
        head = nn.Linear(torch.Size(shape).numel(), _CLASSES)
        return nn.Sequential(*(blocks[name]() for name in self.blocks), nn.Flatten(), head)

    def batch(self, seed: int, size: int) -> tuple[Tensor, Tensor]:
        """Random inputs and classes, a function of the seed.

        Args:
            seed: of the batch.
            size: samples in it.
        """
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(size, *KINDS[self.kind][1], generator=generator)
        return x, torch.randint(0, _CLASSES, (size,), generator=generator)

    @staticmethod
    def loss(model: nn.Module, batch: Any) -> Loss:
        """Cross-entropy, with the accuracy as a metric."""
        x, y = batch
        # Some blocks write to what they are given.
        logits = model(x.clone())
        accuracy = (logits.argmax(-1) == y).float().mean()
        return Loss(F.cross_entropy(logits, y), metrics={"accuracy": accuracy})

    def program(self, **recipe: Any) -> Program:
        """Return a program of it, whose initial values are a function of ``init``'s seed.

        Args:
            recipe: what ``recipes()`` draws.
        """
        return program(self.build, self.loss, **recipe)


@st.composite
def architectures(
    draw: st.DrawFn, kinds: tuple[str, ...] = tuple(KINDS), most: int = 3
) -> Architecture:
    """Draw a model of a few blocks; shrinks to none between input and head.

    Args:
        draw: given by Hypothesis.
        kinds: to choose from.
        most: blocks.

    Example:
        >>> from hypothesis import find
        >>> find(architectures(), lambda found: "BatchNorm" in found.blocks)
        Architecture(kind='vector', blocks=('BatchNorm',))
    """
    kind = draw(st.sampled_from(list(kinds)))
    names = st.lists(st.sampled_from(list(KINDS[kind][0])), max_size=most)
    return Architecture(kind, tuple(draw(names)))


@st.composite
def batches(
    draw: st.DrawFn, architecture: Architecture, least: int = 2, most: int = 5
) -> tuple[Tensor, Tensor]:
    """Draw a batch for a model.

    Args:
        draw: given by Hypothesis.
        architecture: the model.
        least: samples.
        most: samples.
    """
    return architecture.batch(draw(st.integers(0, 99)), draw(st.integers(least, most)))


@attrs.frozen
class Case:
    """A model and a recipe for a program, printed when an example fails.

    Attributes:
        architecture: the model.
        recipe: keyword arguments of ``functrain.program``.

    Example:
        >>> import functrain as ft
        >>> case = Case(Architecture("vector"), {"optimizer": ft.optim.SGD(lr=0.1)})
        >>> state, _ = case.program().train_step(case.program().init(), case.batch(0, 4))
    """

    architecture: Architecture
    recipe: dict[str, Any]

    def program(self, **more: Any) -> Program:
        """Build the program; ``more`` adds to the recipe."""
        return self.architecture.program(**{**self.recipe, **more})

    def batch(self, seed: int, size: int) -> tuple[Tensor, Tensor]:
        """Return a batch that fits, a function of the seed."""
        return self.architecture.batch(seed, size)


@st.composite
def cases(
    draw: st.DrawFn,
    models: st.SearchStrategy[Architecture] | None = None,
    recipe: st.SearchStrategy[dict[str, Any]] | None = None,
) -> Case:
    """Draw a model and a recipe for it.

    Args:
        draw: given by Hypothesis.
        models: by default ``architectures()``.
        recipe: by default ``recipes()``; LSTMs in float32 only, since torch has no
            others on some CPUs.

    Example:
        >>> from hypothesis import find
        >>> find(cases(), lambda case: case.recipe["clip_norm"] is not None).architecture
        Architecture(kind='vector', blocks=())
    """
    architecture = draw(architectures() if models is None else models)
    if recipe is None:
        few = PRECISIONS[:1] if "LSTM" in architecture.blocks else PRECISIONS
        recipe = recipes(precisions=few)
    return Case(architecture, draw(recipe))
