"""Places where two trees differ, as a list that prints itself."""

from __future__ import annotations

from typing import Any, SupportsIndex, overload

import attrs

from functrain.tree.nodes import Path, path_string

_MOST_LINES = 20


@attrs.frozen
class Difference:
    """One place where two trees differ.

    Attributes:
        path: where.
        kind: ``missing`` (only in the first), ``unexpected`` (only in the second), ``type``,
            ``dtype``, ``shape`` or ``value``.
        detail: what differs, for people.
        count: elements that differ (0 where the kind is not ``value``).
        max_abs: largest absolute difference, ``nan`` where it is not defined.
        ulps: largest distance in units in the last place; ``None`` for what is not floating point.
        index: of the first element that differs, ``()`` of a scalar; ``None`` where the kind is not
            ``value``.
        first: its value in the first tree.
        second: and in the second.
    """

    path: Path
    kind: str
    detail: str
    count: int = 0
    max_abs: float = float("nan")
    ulps: int | None = None
    index: tuple[int, ...] | None = None
    first: Any = None
    second: Any = None

    def __str__(self) -> str:
        return f"{path_string(self.path)}: {self.kind}: {self.detail}"


class Differences(list[Difference]):
    """A list that prints one difference per line, and as a table in a notebook.

    Example:
        >>> Differences([Difference(("w",), "dtype", "expected torch.float32, got torch.float16")])
        1 difference
          w: dtype: expected torch.float32, got torch.float16
        >>> Differences()
        []
    """

    @overload
    def __getitem__(self, which: SupportsIndex) -> Difference: ...
    @overload
    def __getitem__(self, which: slice) -> Differences: ...
    def __getitem__(self, which: SupportsIndex | slice) -> Difference | Differences:
        """Return one difference, or a slice that prints itself too."""
        if isinstance(which, slice):
            return Differences(super().__getitem__(which))
        return super().__getitem__(which)

    def __repr__(self) -> str:
        if not self:
            return "[]"
        count = len(self)
        lines = [f"  {found}" for found in self[:_MOST_LINES]]
        more = [f"  ... {count - _MOST_LINES:,} more"] if count > _MOST_LINES else []
        title = f"{count:,} difference{'' if count == 1 else 's'}"
        return "\n".join([title, *lines, *more])
