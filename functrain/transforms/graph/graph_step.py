"""Functions of trees as compiled graphs, and the graphs that a device step keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import attrs
from torch import Tensor

from functrain.core.recipe import StaticParts
from functrain.errors import CaptureError, CompilationError, FallbackWarning, RecompileWarning
from functrain.errors.base import warn
from functrain.transforms.graph.capture import Captured
from functrain.transforms.graph.functions import NewEntriesError
from functrain.transforms.graph.inputs import alike, builder, flatten
from functrain.transforms.graph.lowering import Lowering

T = TypeVar("T")

_MANY = 8  # graphs of one program, after which it warns


class Graph:
    """A compiled function of a tree like the one it was captured with.

    Attributes:
        draws: whether random numbers are drawn.
    """

    def __init__(self, captured: Captured, inputs: Any, lowering: Lowering) -> None:
        # Not the inputs themselves: where two of them share memory, that would be built in.
        self._call = lowering.compile(captured.graph, list(map(alike, flatten(inputs))))
        self._build = builder(captured.returned)
        self.draws = captured.draws

    def __call__(self, tensors: list[Tensor]) -> dict[str, Any]:
        """Return what the function returns for a tree of other tensors."""
        found: dict[str, Any] = self._build(iter(self._call(*tensors)))
        return found


class RunsEagerlyError(Exception):
    """A step of this form is no graph."""


@attrs.frozen(eq=False, repr=False)
class GraphStep:
    """A device step that keeps a graph for each form of its inputs.

    Its memory changes nothing except the time a step takes.

    Attributes:
        fallback: whether a step that is no graph runs eagerly.
        graphs: by the form of the inputs; ``None`` stands for eager.
    """

    fixed: StaticParts
    lowering: Lowering
    fallback: bool
    graphs: dict[Any, Any] = attrs.field(factory=dict, init=False)

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy compiles its own graphs.
        names = [field.name for field in attrs.fields(type(self)) if field.init]
        return type(self), tuple(getattr(self, name) for name in names)

    def graph(self, key: Any, make: Callable[[], T]) -> T:
        """Return the graph for a form, which is made if there is none.

        Raises:
            RunsEagerlyError: there can be none, and the caller was warned.
        """
        if key not in self.graphs:
            self._warn_of_many()
            self.graphs[key] = self._make(make)
        found: T | None = self.graphs[key]
        if found is None:
            raise RunsEagerlyError
        return found

    def _make(self, make: Callable[[], T]) -> T | None:
        try:
            return make()
        except NewEntriesError:  # the next state has them
            return None
        except (CaptureError, CompilationError) as error:
            self.fall_back(error)
            return None

    def fall_back(self, error: Exception) -> None:
        """Warn that a step runs eagerly, or raise the reason."""
        if not self.fallback:
            raise error
        warn(f"this step runs eagerly: {error}", FallbackWarning)

    def _warn_of_many(self) -> None:
        if len(self.graphs) == _MANY:
            warn(
                f"this program was compiled for {_MANY} forms of batch, and this is one more. "
                "Every shape, number or string in a batch has a graph of its own: pad, drop the "
                "last batch, or leave out of batches the fields that the loss does not use",
                RecompileWarning,
            )
