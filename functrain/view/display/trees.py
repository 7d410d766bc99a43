"""A tree in a notebook: folding nodes, and of every tensor its form, size and values."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from torch import Tensor

from functrain.tree.display import byte_size, summary, totals
from functrain.tree.nodes import Key, Leaf, Tree, children, is_node, items
from functrain.view.display.blocks import COLORS, block, code, folding, quiet, table
from functrain.view.display.histograms import histogram, in_words
from functrain.view.display.spreads import Spread, spreads
from functrain.view.plotting.markup import Markup, element

# Children shown of one node before the rest is only counted.
_MOST = 100


def html(tree: Tree, title: str, note: str = "", unfolded: tuple[str, ...] = ()) -> Markup:
    """A tree for a notebook.

    Args:
        tree: any tree.
        title: of the outermost node.
        note: behind it.
        unfolded: keys of the nodes just below it that are unfolded at first.

    Returns:
        A self-contained HTML fragment.
    """
    found = spreads(_tensors(tree))
    summary_line = (element("b", title), " ", quiet(f"{note} {totals(tree)}"))
    return block(folding(summary_line, *_rows(tree, found, unfolded), unfolded=True))


def _tensors(tree: Tree) -> Iterator[Tensor]:
    """The tensors that are shown."""
    if isinstance(tree, Tensor):
        yield tree
    elif is_node(tree):
        for _, child in children(tree)[:_MOST]:
            yield from _tensors(child)


def _rows(node: Tree, found: dict[int, Spread], unfolded: tuple[str, ...] = ()) -> Iterator[Markup]:
    """The children of a node in order, leaves next to each other in a table."""
    pairs = children(node)
    for is_inner, group in groupby(pairs[:_MOST], lambda pair: _has_children(pair[1])):
        if is_inner:
            for key, child in group:
                line = (str(key), " ", quiet(_held(child)))
                yield folding(line, *_rows(child, found), unfolded=key in unfolded)
        else:
            yield table(_cells(key, leaf, found) for key, leaf in group)
    if len(pairs) > _MOST:
        yield element("div", quiet(f"... {len(pairs) - _MOST:,} more"))


def _held(node: Tree) -> str:
    """How much a node holds, if it is not numbers alone."""
    return totals(node) if any(isinstance(leaf, Tensor) for _, leaf in items(node)) else ""


def _has_children(tree: Tree) -> bool:
    return is_node(tree) and bool(children(tree))


def _cells(key: Key, leaf: Leaf, found: dict[int, Spread]) -> list[object]:
    if is_node(leaf):
        return [str(key), quiet("empty")]
    cells: list[object] = [str(key), code(summary(leaf))]
    if isinstance(leaf, Tensor) and leaf.ndim:
        cells.append(quiet(byte_size(leaf.numel() * leaf.element_size())))
    if id(leaf) in found:
        cells += _values(found[id(leaf)], leaf.numel())
    return cells


def _values(spread: Spread, size: int) -> list[object]:
    """The histogram, and next to it the range; what is not finite stands out."""
    bad = _not_finite(spread)
    if spread.low is None:
        return ["", bad]
    if not spread.counts:
        return [quiet(f"all {spread.low:.4g}" if not bad else f"else {spread.low:.4g}"), bad]
    text = element(
        "span",
        f"{spread.low:.3g} \N{HORIZONTAL ELLIPSIS} {spread.high:.3g} ",
        title=in_words(spread, size),
        style="opacity:.7;white-space:nowrap",
    )
    return [histogram(spread, size), element("span", text, bad)]


def _not_finite(spread: Spread) -> Markup:
    counts = ((spread.nan, "NaN"), (spread.infinite, "Inf"))
    words = ", ".join(f"{count:,} {name}" for count, name in counts if count)
    if not words:
        return Markup("")
    sampled = "" if spread.searched else f" among {spread.looked_at:,} looked at"
    return element("b", words, sampled, style=f"color:{COLORS[1]}")
