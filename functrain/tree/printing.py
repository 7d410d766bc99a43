"""Print a tree in a terminal, as indented text."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from functrain.tree.nodes import Leaf, Tree, children, is_node, items
from functrain.tree.placed import is_placed, placement
from functrain.tree.torch_internals import is_wrapped

_MOST_ROWS = 12
# vmap's and grad's wrappers have no single value.
_SHORT = {
    torch.bool: "bool",
    torch.bfloat16: "bf16",
    torch.complex64: "c64",
    torch.complex128: "c128",
}


def short_dtype(dtype: torch.dtype) -> str:
    """Return a dtype in the short form of array printouts.

    Example:
        >>> short_dtype(torch.float32), short_dtype(torch.int64), short_dtype(torch.bfloat16)
        ('f32', 'i64', 'bf16')
    """
    name = str(dtype).removeprefix("torch.")
    return _SHORT.get(dtype, name.replace("uint", "u").replace("int", "i").replace("float", "f"))


def tensor_text(dtype: torch.dtype, shape: Sequence[int], device: str = "cpu") -> str:
    """Return dtype, shape and device of a tensor in the short form of array printouts.

    Example:
        >>> tensor_text(torch.float32, [64, 10]), tensor_text(torch.int64, [], "cuda:0")
        ('f32[64,10]', 'i64[] cuda:0')
    """
    text = f"{short_dtype(dtype)}[{','.join(map(str, shape))}]"
    return text if device == "cpu" else f"{text} {device}"


def summary(leaf: Leaf) -> str:
    """Describe one leaf on one line: dtype and shape of a tensor, the value of a scalar.

    Example:
        >>> summary(torch.zeros(64, 10)), summary(torch.tensor(3)), summary(0.5)
        ('f32[64,10]', 'i64[] = 3', '0.5')
    """
    if not isinstance(leaf, Tensor):
        return repr(leaf)
    if is_placed(leaf):
        return f"{tensor_text(leaf.dtype, leaf.shape)} {placement(leaf)}".rstrip()
    text = tensor_text(leaf.dtype, leaf.shape, str(leaf.device))
    if leaf.device.type != "cpu":
        return text
    # Only on the CPU, because printing a state must not wait for a device.
    return f"{text} = {leaf.item()!r}" if leaf.ndim == 0 and not is_wrapped(leaf) else text


def totals(tree: Tree) -> str:
    """Count the tensors, elements and bytes of a tree.

    Example:
        >>> totals({"w": torch.zeros(64, 10), "b": torch.zeros(10)})
        '2 tensors, 650 elements, 2.5 KiB'
    """
    tensors = [leaf for _, leaf in items(tree) if isinstance(leaf, Tensor)]
    elements = sum(tensor.numel() for tensor in tensors)
    size = byte_size(sum(tensor.numel() * tensor.element_size() for tensor in tensors))
    counts = _counted(len(tensors), "tensor"), _counted(elements, "element"), size
    return ", ".join(counts)


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def byte_size(count: int) -> str:
    """Format a number of bytes for people.

    Example:
        >>> byte_size(40), byte_size(2600), byte_size(5 * 2**30)
        ('40 B', '2.5 KiB', '5.0 GiB')
    """
    if count < 1024:
        return f"{count} B"
    size, units = count / 1024, iter(("KiB", "MiB", "GiB", "TiB", "PiB"))
    unit = next(units)
    while size >= 1024 and (larger := next(units, "")):
        size, unit = size / 1024, larger
    return f"{size:.1f} {unit}"


def text(tree: Tree, indent: int = 0, rows: int = _MOST_ROWS) -> str:
    """Format a tree as indented lines, one per leaf; long nodes are cut in the middle.

    Args:
        tree: any tree.
        indent: spaces before each line.
        rows: the most children shown of one node; the rest are only counted.

    Returns:
        Lines joined by newlines.

    Example:
        >>> print(text({"w": torch.zeros(2, 3), "slots": {"step": 1}}))
        w  f32[2,3]
        slots
          step  1
    """
    pairs = children(tree)
    width = max((len(str(key)) for key, child in pairs if not is_node(child)), default=0)
    lines = []
    for key, child in pairs[:rows]:
        if is_node(child) and children(child):
            lines += [f"{key}", text(child, 2, rows)]
        else:
            shown = "empty" if is_node(child) else summary(child)
            lines.append(f"{key!s:<{width}}  {shown}")
    if len(pairs) > rows:
        lines.append(f"... {len(pairs) - rows} more")
    return "\n".join(" " * indent + line for block in lines for line in block.split("\n"))
