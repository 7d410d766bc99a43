"""A state, or any tree, in a notebook: folding nodes, and the form, size and values of tensors."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from torch import Tensor

from functrain.core.state import TrainState, is_consumed
from functrain.plotting.colors import BETWEEN
from functrain.tree.nodes import Key, Leaf, Tree, children, is_node, items
from functrain.tree.printing import byte_size, summary, totals
from functrain.view.blocks import Markup, block, code, element, folding, quiet, table
from functrain.view.value_summary import ValueSummary, histogram, in_words, value_summaries

# A node shows so many children; the rest is only counted.
_MOST = 100


def html(state: TrainState) -> Markup | None:
    """Return the tree of a state; ``None`` if a donated step took the state, as its repr says."""
    if is_consumed(state):
        return None
    counters = state.counters
    note = f"step {counters.step}, epoch {counters.epoch}, batch {counters.batch};"
    return tree_html(state, "TrainState", note, unfolded=("params",))


def tree_html(tree: Tree, title: str, note: str = "", unfolded: tuple[str, ...] = ()) -> Markup:
    """Return a tree as a self-contained fragment of HTML.

    ``unfolded`` has the keys of nodes just below the outermost that are unfolded at first.
    """
    summaries = value_summaries(_tensors(tree))
    line = (element("b", title), " ", quiet(f"{note} {totals(tree)}"))
    return block(folding(line, *_rows(tree, summaries, unfolded), unfolded=True))


def _tensors(tree: Tree) -> Iterator[Tensor]:
    """Return the tensors that are shown."""
    if isinstance(tree, Tensor):
        yield tree
    elif is_node(tree):
        for _, child in children(tree)[:_MOST]:
            yield from _tensors(child)


def _rows(
    node: Tree, summaries: dict[int, ValueSummary], unfolded: tuple[str, ...] = ()
) -> Iterator[Markup]:
    """Return the children of a node in order, adjacent leaves in one table."""
    pairs = children(node)
    for is_inner, group in groupby(
        pairs[:_MOST], lambda pair: is_node(pair[1]) and bool(children(pair[1]))
    ):
        if is_inner:
            for key, child in group:
                line = (str(key), " ", quiet(_tensor_totals(child)))
                yield folding(line, *_rows(child, summaries), unfolded=key in unfolded)
        else:
            yield table(_cells(key, leaf, summaries) for key, leaf in group)
    if len(pairs) > _MOST:
        yield element("div", quiet(f"... {len(pairs) - _MOST:,} more"))


def _tensor_totals(node: Tree) -> str:
    return totals(node) if any(isinstance(leaf, Tensor) for _, leaf in items(node)) else ""


def _cells(key: Key, leaf: Leaf, summaries: dict[int, ValueSummary]) -> list[object]:
    if is_node(leaf):
        return [str(key), quiet("empty")]
    cells: list[object] = [str(key), code(summary(leaf))]
    if isinstance(leaf, Tensor) and leaf.ndim:
        cells.append(quiet(byte_size(leaf.numel() * leaf.element_size())))
    if id(leaf) in summaries:
        cells += _values(summaries[id(leaf)], leaf.numel())
    return cells


def _values(values: ValueSummary, size: int) -> list[object]:
    """Return a histogram and its range; values that are not finite stand out."""
    bad = _not_finite(values)
    if values.low is None:
        return ["", bad]
    if not values.counts:
        return [quiet(f"all {values.low:.4g}" if not bad else f"else {values.low:.4g}"), bad]
    text = element(
        "span",
        f"{values.low:.3g} \N{HORIZONTAL ELLIPSIS} {values.high:.3g} ",
        title=in_words(values, size),
        style="opacity:.7;white-space:nowrap",
    )
    return [histogram(values, size), element("span", text, bad)]


def _not_finite(values: ValueSummary) -> Markup:
    counts = ((values.nan, "NaN"), (values.infinite, "Inf"))
    words = ", ".join(f"{count:,} {name}" for count, name in counts if count)
    if not words:
        return Markup("")
    sampled = "" if values.searched else f" among {values.looked_at:,} looked at"
    return element("b", words, sampled, style=f"color:{BETWEEN[1]}")
