"""Draw trees like states and batches: tensors of any dtype and layout, aliases, scalars."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from functrain import tree

DTYPES = (
    *(torch.float32, torch.float64, torch.bfloat16, torch.float16),
    *(torch.int64, torch.int32, torch.uint8, torch.bool, torch.complex64),
)
SHAPES = ((), (1,), (3,), (2, 3), (0,), (2, 3, 2, 2))

LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda value: value,
    "transposed": lambda value: value.permute(tuple(reversed(range(value.ndim)))),
    "every other": lambda value: value[..., ::2] if value.ndim else value,
    "part of a larger one": lambda value: torch.stack([value, value])[1],
    "expanded": lambda value: value.expand(2, *value.shape),
    "channels last": lambda value: (
        value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value
    ),
}


@st.composite
def tensors(
    draw: st.DrawFn,
    dtypes: Sequence[torch.dtype] = DTYPES,
    shapes: Sequence[tuple[int, ...]] = SHAPES,
    layouts: Sequence[str] = tuple(LAYOUTS),
) -> Tensor:
    """Draw a tensor of any bits, including NaN payloads, infinities and -0.0; shrinks to zeros.

    Args:
        draw: given by Hypothesis.
        dtypes: to choose from.
        shapes: to choose from, before the layout changes it.
        layouts: names in ``LAYOUTS``, such as ``"transposed"``.

    Example:
        >>> from hypothesis import find
        >>> find(tensors(), lambda tensor: tensor.numel() == 3)
        tensor([0., 0., 0.])
    """
    dtype = draw(st.sampled_from(list(dtypes)))
    shape = torch.Size(draw(st.sampled_from(list(shapes))))
    layout = LAYOUTS[draw(st.sampled_from(list(layouts)))]
    return layout(_dense(draw, shape, dtype))


def scalars() -> st.SearchStrategy[Any]:
    """Draw Python values that a state may hold: numbers of any size, text, ``None``."""
    numbers = st.integers(-(1 << 66), 1 << 66) | st.floats()
    return st.none() | st.booleans() | numbers | st.text(max_size=4) | st.binary(max_size=4)


@st.composite
def trees(
    draw: st.DrawFn,
    leaves: st.SearchStrategy[Any] | None = None,
    aliases: bool = True,
    max_leaves: int = 8,
) -> Any:
    """Draw a dict of dicts, lists, tuples and leaves.

    Args:
        draw: given by Hypothesis.
        leaves: what leaves are drawn from; by default tensors and scalars.
        aliases: whether a tensor may be there twice, as itself or as a view.
        max_leaves: the most of them.

    Example:
        >>> from hypothesis import find
        >>> find(trees(), lambda tree: len(tree) == 1)
        {'': None}
    """
    shape = draw(_shapes(leaves, aliases, max_leaves))
    if leaves is not None:
        return shape
    pool: list[Tensor] = []

    def filled(leaf: Any) -> Any:
        if not isinstance(leaf, _Hole):
            return leaf
        if leaf.number is None or leaf.number >= len(pool):
            pool.append(draw(tensors()))
            return pool[-1]
        return pool[leaf.number].view_as(pool[leaf.number]) if leaf.view else pool[leaf.number]

    return tree.map(filled, shape)


class _Hole:
    """Return a new tensor, or an alias of an earlier one."""

    def __init__(self, number: int | None, view: bool) -> None:
        self.number, self.view = number, view


# Strategies are slow to make, and these are wanted for each tree.
@functools.cache
def _shapes(
    leaves: st.SearchStrategy[Any] | None, aliases: bool, max_leaves: int
) -> st.SearchStrategy[dict[str, Any]]:
    number = st.none() | st.integers(0, 2) if aliases else st.none()
    pool = scalars() | st.builds(_Hole, number, st.booleans()) if leaves is None else leaves
    names = st.text("abcw.0", max_size=4)
    inner = st.recursive(
        pool,
        lambda inner: (
            st.dictionaries(names, inner, max_size=3)
            | st.lists(inner, max_size=3)
            | st.lists(inner, max_size=3).map(tuple)
        ),
        max_leaves=max_leaves,
    )
    return st.dictionaries(names, inner, max_size=4)


def _dense(draw: st.DrawFn, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    count = shape.numel()
    if not count:
        return torch.zeros(shape, dtype=dtype)
    if dtype is torch.bool:
        values = draw(st.lists(st.booleans(), min_size=count, max_size=count))
        return torch.tensor(values).reshape(shape)
    size = count * dtype.itemsize
    bits = bytearray(draw(st.binary(min_size=size, max_size=size)))
    return torch.frombuffer(bits, dtype=dtype).reshape(shape).clone()
