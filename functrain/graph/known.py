"""Which tensors were looked at already: a step returns what the next one is given."""

from __future__ import annotations

import operator
import weakref
from collections.abc import Iterable

import attrs
from torch import Tensor


@attrs.define(eq=False)
class Known:
    """A memory of the last state seen, and of its form.

    It holds the tensors weakly: to remember a state is not to keep it.

    Attributes:
        references: to the leaves.
        names: of the parameters, in order.
        form: the number of their form.
        places: where the storages of the leaves begin.
    """

    references: list[weakref.ref[Tensor]] = attrs.field(factory=list)
    names: list[str] = attrs.field(factory=list)
    form: int = -1
    places: frozenset[int] = frozenset()

    def holds(self, leaves: list[Tensor], names: Iterable[str]) -> bool:
        """Whether these very tensors were seen last, under the same names.

        Args:
            leaves: the tensors of a state.
            names: of its parameters.
        """
        references = self.references
        return (
            len(references) == len(leaves)
            and all(map(operator.is_, [reference() for reference in references], leaves))
            and list(names) == self.names
        )

    def see(self, leaves: list[Tensor], names: Iterable[str], form: int) -> None:
        """Remember a state.

        Args:
            leaves: its tensors.
            names: of its parameters.
            form: the number of its form.
        """
        self.references, self.form = list(map(weakref.ref, leaves)), form
        self.names = list(names)
        self.places = frozenset(leaf.untyped_storage().data_ptr() for leaf in leaves)
