"""A device step by graphs: what compiled steps of one program and of a population share."""

from __future__ import annotations

import operator
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import attrs
from torch import Tensor

from functrain import tree
from functrain.core.recipe import StaticParts
from functrain.core.state import Donation
from functrain.core.step import DeviceState
from functrain.errors import CaptureError, CompilationError, FallbackWarning
from functrain.errors.base import warn
from functrain.transforms.graph.garbage import fewer_collections
from functrain.transforms.graph.inputs import Form, flatten, form, unlike_dense, writable
from functrain.transforms.graph.lowering import Lowering
from functrain.transforms.graph.missing_entries import MissingEntriesError

WRITTEN = ("params", "buffers", "optimizer", "ema")  # a graph writes to these


@attrs.define(eq=False)
class StateCache:
    """The last state seen, and its form: most of its tensors return in the next step.

    It holds the tensors weakly, so that it keeps no state alive.

    Attributes:
        references: to the leaves.
        names: of the parameters, in order.
        places: where the storages of the leaves begin.
    """

    references: list[weakref.ref[Tensor]] = attrs.field(factory=list)
    names: list[str] = attrs.field(factory=list)
    form: int = -1
    places: frozenset[int] = frozenset()

    def holds(self, leaves: list[Tensor], names: Iterable[str]) -> bool:
        """Return whether these very tensors were seen last, under the same names."""
        references = self.references
        return (
            len(references) == len(leaves)
            and all(map(operator.is_, map(operator.call, references), leaves))
            and list(names) == self.names
        )

    def see(self, leaves: list[Tensor], names: Iterable[str], form: int) -> None:
        """Remember a state."""
        self.references, self.form = list(map(weakref.ref, leaves)), form
        self.names = list(names)
        self.places = frozenset(leaf.untyped_storage().data_ptr() for leaf in leaves)


@attrs.frozen(eq=False, repr=False)
class GraphStep:
    """A device step that keeps a graph for each form of state and inputs it was given.

    Its memory changes nothing except the time a step takes.

    Attributes:
        fallback: whether a step that is no graph runs eagerly.
        graphs: by the form of the state and of the other inputs; ``None`` stands for eager,
            ``MissingEntriesError`` for a state without counts of parameters that the step skips.
        forms: numbers of the forms of states.
        known: the leaves of the last state returned, with its form.
        maker: stands for this step in the states that it makes.
    """

    fixed: StaticParts
    lowering: Lowering
    fallback: bool
    graphs: dict[Any, Any] = attrs.field(factory=dict, init=False)
    forms: dict[Form, int] = attrs.field(factory=dict, init=False)
    known: StateCache = attrs.field(factory=StateCache, init=False)
    maker: object = attrs.field(factory=object, init=False)

    def copied(self, state: DeviceState) -> DeviceState:
        """Return a state with copies of the tensors that a graph writes to."""
        raise NotImplementedError

    def number(self, state: DeviceState) -> int:
        """Return the number of a state's form."""
        return self.forms.setdefault(form(state), len(self.forms))

    def held(
        self, large: DeviceState, donation: Donation | None
    ) -> tuple[DeviceState, list[Tensor], int, Donation | None]:
        """Return a state that a graph may write to, its leaves, its form, and its donation.

        It is a copy without a donation where the given one must not be written to.

        Raises:
            CaptureError: no graph takes one of its tensors.
        """
        leaves = flatten(large)
        seen = self.known.holds(leaves, large["params"])
        if not seen:
            require_dense(large)
        is_lent = donation is None or not donation.lends_to(self.maker)
        if is_lent or not (seen or writable(leaves)):
            large, donation = self.copied(large), None
            leaves = flatten(large)
        number = self.known.form if seen else self.number(large)
        if donation is None or not seen:
            self.known.see(leaves, large["params"], number)
        return large, leaves, number, donation

    def add(self, key: Any, made: Callable[[], Any]) -> None:
        """Capture and compile the graph of a form."""
        try:
            with fewer_collections():
                self.graphs[key] = made()
        except MissingEntriesError as error:
            self.graphs[key] = MissingEntriesError(error.optimizer)  # whose frames hold no capture
        except (CaptureError, CompilationError) as error:
            self.fall_back(error)
            self.graphs[key] = None

    def fall_back(self, error: Exception) -> None:
        """Warn that a step runs eagerly, or raise the reason."""
        if not self.fallback:
            raise error
        warn(f"this step runs eagerly: {error}", FallbackWarning)


def require_dense(state: DeviceState) -> None:
    """Refuse a state with tensors that no graph takes."""
    for path, leaf in tree.items(state):
        if isinstance(leaf, Tensor) and (kind := unlike_dense(leaf)) is not None:
            where = f"state.{tree.path_string(path)}"
            raise CaptureError(f"{where} is a {kind} tensor; a graph takes dense ones", None)
