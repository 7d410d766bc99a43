"""Which tensors were looked at already: a step returns what the next one is given."""

from __future__ import annotations

import operator
import weakref

import attrs
from torch import Tensor


@attrs.define(eq=False)
class Known:
    """A memory of the last list of tensors seen, and of their form.

    It holds them weakly: to remember a state is not to keep it.
    """

    references: list[weakref.ref[Tensor]] = attrs.field(factory=list)
    form: int = -1

    def __contains__(self, leaves: list[Tensor]) -> bool:
        """Whether these very tensors were seen last."""
        references = self.references
        return len(references) == len(leaves) and all(
            map(operator.is_, [reference() for reference in references], leaves)
        )

    def see(self, leaves: list[Tensor], form: int) -> None:
        """Remember tensors.

        Args:
            leaves: the tensors.
            form: the number of their form.
        """
        self.references, self.form = list(map(weakref.ref, leaves)), form
