"""What Python does besides computing with tensors: a captured graph would do it never again."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from typing import Any

import attrs
from torch import nn

_PLAIN = (bool, int, float, str, type(None))


@attrs.frozen(eq=False)
class Effects:
    """The generators of Python and NumPy, and the plain attributes of a module, at one time."""

    attributes: list[tuple[str, dict[str, Any], dict[str, Any]]]
    python: object
    numpy: Any

    @classmethod
    def of(cls, module: nn.Module) -> Effects:
        """As they are now."""
        found = [(path, vars(one), _plain(one)) for path, one in module.named_modules()]
        return cls(found, random.getstate(), _numpy_state())

    def undone(self, module: nn.Module) -> str | None:
        """Put everything back, and tell what had changed.

        Args:
            module: the same module.

        Returns:
            A sentence, or ``None`` where nothing had.
        """
        changed = list(self._changed())
        if random.getstate() != self.python:
            random.setstate(self.python)  # type: ignore[arg-type]
            changed.append("random numbers of Python's `random` were drawn")
        if self.numpy is not None and str(_numpy_state()) != str(self.numpy):
            sys.modules["numpy"].random.set_state(self.numpy)
            changed.append("random numbers of `numpy.random` were drawn")
        return "; ".join(changed) or None

    def _changed(self) -> Iterator[str]:
        for path, own, before in self.attributes:
            for name, value in before.items():
                if name in own and own[name] is not value and own[name] != value:
                    own[name] = value
                    where = f"{path}.{name}" if path else name
                    yield f"the attribute {where!r} of the module was changed"


def _plain(module: nn.Module) -> dict[str, Any]:
    return {k: v for k, v in vars(module).items() if type(v) in _PLAIN and k != "training"}


def _numpy_state() -> Any:
    # Its state can only have changed where somebody has imported it.
    numpy = sys.modules.get("numpy")
    return None if numpy is None else numpy.random.get_state(legacy=False)
