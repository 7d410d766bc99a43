"""Updates that were taken out of a graph, and their call after it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from torch import Tensor

Layout = tuple[int, ...]


@attrs.frozen
class Updates:
    """A library to be compiled that updates what a graph is given.

    Attributes:
        source: in C++.
        given: how many tensors it takes: those of the graph, and those that the graph returns last.
        layouts: of the latter.
    """

    source: str
    given: int
    layouts: list[Layout]

    def after(self, rest: Callable[..., Any], update: Callable[..., None]) -> Callable[..., Any]:
        """Return a function that calls the rest of the graph, and then the library."""
        return _Both(rest, update, self.layouts)


@attrs.define(eq=False)
class _Both:
    """The rest of a graph, and its updates.

    Attributes:
        is_checked: whether what the graph returns has been seen to lie in memory as the library
            takes for granted; a compiled graph returns the same layouts each time.
    """

    rest: Callable[..., Any]
    update: Callable[..., None]
    layouts: list[Layout]
    is_checked: bool = False

    def __call__(self, *leaves: Tensor) -> list[Tensor]:
        """Do what the whole graph does.

        Raises:
            RuntimeError: the compiled graph returns other layouts; nothing is updated.
        """
        found = self.rest(*leaves)
        count = len(found) - len(self.layouts)
        read = found[count:]
        if not self.is_checked:
            got = list(map(layout, read))
            if got != self.layouts:  # also under python -O: the library reads by these strides
                raise RuntimeError(f"expected tensors laid out as {self.layouts}, got {got}")
            self.is_checked = True
        self.update(*leaves, *read)
        returned: list[Tensor] = found[:count]
        return returned


def layout(tensor: Tensor) -> Layout:
    """Return shape and strides of a tensor, without the strides of dimensions of size 1."""
    pairs = zip(tensor.shape, tensor.stride(), strict=True)
    return (*tensor.shape, *(stride for size, stride in pairs if size != 1))
