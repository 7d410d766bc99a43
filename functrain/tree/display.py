"""How a tree shows itself: as indented text in a terminal, as folding lists in a notebook."""

from __future__ import annotations

from html import escape

import torch
from torch import Tensor

from functrain.tree.nodes import Leaf, Tree, children, is_node, items

_MOST_ROWS = 12
_SHORT = {
    torch.bool: "bool",
    torch.bfloat16: "bf16",
    torch.complex64: "c64",
    torch.complex128: "c128",
}


def short_dtype(dtype: torch.dtype) -> str:
    """A dtype in the short form of array printouts.

    Example:
        >>> short_dtype(torch.float32), short_dtype(torch.int64), short_dtype(torch.bfloat16)
        ('f32', 'i64', 'bf16')
    """
    name = str(dtype).removeprefix("torch.")
    return _SHORT.get(dtype, name.replace("uint", "u").replace("int", "i").replace("float", "f"))


def summary(leaf: Leaf) -> str:
    """One leaf on one line: dtype and shape of a tensor, the value of a scalar.

    Example:
        >>> summary(torch.zeros(64, 10)), summary(torch.tensor(3)), summary(0.5)
        ('f32[64,10]', 'i64[] = 3', '0.5')
    """
    if not isinstance(leaf, Tensor):
        return repr(leaf)
    shape = ",".join(str(size) for size in leaf.shape)
    text = f"{short_dtype(leaf.dtype)}[{shape}]"
    if leaf.device.type != "cpu":
        return f"{text} {leaf.device}"
    # Only on the CPU: showing a state must not wait for a device.
    return f"{text} = {leaf.item()!r}" if leaf.ndim == 0 and not _wrapped(leaf) else text


def totals(tree: Tree) -> str:
    """How much a tree holds: tensors, elements, bytes.

    Example:
        >>> totals({"w": torch.zeros(64, 10), "b": torch.zeros(10)})
        '2 tensors, 650 elements, 2.5 KiB'
    """
    tensors = [leaf for _, leaf in items(tree) if isinstance(leaf, Tensor)]
    elements = sum(tensor.numel() for tensor in tensors)
    size = float(sum(tensor.numel() * tensor.element_size() for tensor in tensors))
    units = iter(("B", "KiB", "MiB", "GiB", "TiB"))
    unit = next(units)
    while size >= 1024:
        size, unit = size / 1024, next(units)
    plural = "" if len(tensors) == 1 else "s"
    return f"{len(tensors)} tensor{plural}, {elements:,} elements, {size:.1f} {unit}"


def text(tree: Tree, indent: int = 0, rows: int = _MOST_ROWS) -> str:
    """A tree as indented lines, one a leaf; long nodes are cut in the middle.

    Args:
        tree: any tree.
        indent: spaces before each line.
        rows: children shown of one node before the rest is only counted.

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
            lines.append(f"{key!s:<{width}}  {_empty(child) or summary(child)}")
    if len(pairs) > rows:
        lines.append(f"... {len(pairs) - rows} more")
    return "\n".join(" " * indent + line for block in lines for line in block.split("\n"))


def html(tree: Tree, title: str) -> str:
    """A tree as nested ``<details>`` elements for notebooks; nothing is fetched or run.

    Args:
        tree: any tree.
        title: the text of the outermost summary line.

    Returns:
        A self-contained HTML fragment.
    """
    note = f' <span style="opacity:.6">{escape(totals(tree))}</span>'
    body = "".join(_html_row(key, child) for key, child in children(tree))
    return (
        '<details open style="font-family:monospace;font-size:13px">'
        f"<summary><b>{escape(title)}</b>{note}</summary>{body}</details>"
    )


def _html_row(key: object, child: Tree) -> str:
    style = 'style="margin-left:1.4em"'
    if not is_node(child):
        return f"<div {style}>{escape(str(key))} <code>{escape(summary(child))}</code></div>"
    if not children(child):
        return f"<div {style}>{escape(str(key))} <i>empty</i></div>"
    note = f'<span style="opacity:.6">{escape(totals(child))}</span>'
    body = "".join(_html_row(inner, leaf) for inner, leaf in children(child))
    return f"<details {style}><summary>{escape(str(key))} {note}</summary>{body}</details>"


def _empty(child: Tree) -> str:
    return "empty" if is_node(child) and not children(child) else ""


def _wrapped(leaf: Tensor) -> bool:
    """Whether the tensor is one of vmap's or grad's wrappers, which have no single value."""
    return torch._C._functorch.is_functorch_wrapped_tensor(leaf)
