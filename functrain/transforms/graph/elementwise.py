"""The elementwise end of a step, taken out of its graph.

An optimizer repeats its rule for each parameter. Inductor would compile every repetition, at which
it spends half of its time; here equal rules become one loop in C++ over the parameters (see
``loops.py``), and the rest of the graph returns the gradients and numbers that it reads.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node

from functrain.transforms.graph.aliases import Aliases, is_pure
from functrain.transforms.graph.cplusplus import TYPES, has_expression
from functrain.transforms.graph.loops import Update, Updates, layout, source

_COPY = torch.ops.aten.copy_.default
_DTYPES = (torch.float32, torch.float64)


def split(module: GraphModule) -> Updates | None:
    """Take the elementwise updates of a graph's inputs out of it, if there are any.

    The graph then returns more behind what it returned: what the updates read of it.
    """
    graph = module.graph
    merge_numbers(graph)
    updates = list(_updates(graph))
    if not updates:
        return None
    given = dict.fromkeys(graph.find_nodes(op="placeholder"))
    found = dict.fromkeys(node for one in updates for node in (*one.inputs, *one.numbers))
    read = [node for node in found if node not in given]
    text = source(updates, [*given, *read])
    (output,) = graph.find_nodes(op="output")
    output.args = ([*output.args[0], *read],)
    for update in updates:
        for target in update.writes:
            (copy,) = (user for user in target.users if user.target is _COPY)
            graph.erase_node(copy)
        for node in reversed(update.nodes):
            graph.erase_node(node)
    module.recompile()
    return Updates(text, len(given) + len(read), [layout(value_of(node)) for node in read])


def merge_numbers(graph: Graph) -> None:
    """Merge equal computations of tensors without dimensions, such as bias corrections."""
    aliases, found = Aliases(graph), dict[object, Node]()
    for node in list(graph.nodes):
        # One that is written to later, as `total += x` does, is a tensor of its own.
        if not is_pure(node) or not _is_number(node) or aliases.writes(node):
            continue
        if not all(
            _is_number(one) and aliases.is_unchanged(one, node) for one in node.all_input_nodes
        ):
            continue
        key = (node.target, repr(node.args), repr(node.kwargs))
        first = found.setdefault(key, node)
        if first is not node:
            node.replace_all_uses_with(first)
            graph.erase_node(node)


def _updates(graph: Graph) -> Iterator[Update]:
    """Return the updates that may be done after everything else."""
    aliases = Aliases(graph)
    writes = {node: _write(node, aliases) for node in graph.nodes}
    copies = {node: pair for node, pair in writes.items() if pair is not None}
    inside = set[Node]()
    for node in reversed(graph.nodes):  # so all users of a node have been seen before it
        users = [user for user in node.users if user in inside or user in copies]
        if node.users and len(users) == len(node.users) and _has_formula(node, users):
            inside.add(node)
    taken = [node for node in graph.nodes if node in copies or node in inside]
    for component in _components(taken):
        found = _update(component, copies)
        if found is not None and _may_be_last(found, aliases):
            yield found


def _write(node: Node, aliases: Aliases) -> tuple[Node, Node] | None:
    """Return input and value if a node is the one write to an input, which nothing reads later."""
    if node.target is not _COPY or node.users or len(node.args) != 2:
        return None
    target, value = node.all_input_nodes if len(node.all_input_nodes) == 2 else (None, None)
    if target is None or value is None or target.op != "placeholder":
        return None
    if not _are_tensors([target, value]):
        return None
    old, new = value_of(target), value_of(value)
    fits = (
        old.ndim > 0
        and old.is_cpu
        and old.dtype in _DTYPES
        and (old.dtype, old.shape) == (new.dtype, new.shape)
        and torch.ops.aten.is_non_overlapping_and_dense(old)
        and aliases.writes(target) == [node]
        and aliases.last_use(target) is node
    )
    return (target, value) if fits else None


def _has_formula(node: Node, users: list[Node]) -> bool:
    """Return whether a node is computed from elements at one place and from numbers."""
    if not has_expression(node) or not _are_tensors([node, *node.all_input_nodes, *users]):
        return False
    value = value_of(node)
    if not value.is_cpu or value.dtype not in (*_DTYPES, torch.bool):
        return False
    if any(value_of(user).shape != value.shape for user in users):
        return False
    operands = [value_of(one) for one in node.all_input_nodes]
    shaped = all(one.shape == value.shape or not one.ndim for one in operands)
    return shaped and all(one.is_cpu and one.dtype in TYPES for one in operands)


def _components(nodes: list[Node]) -> Iterable[list[Node]]:
    """Return nodes that depend on each other together, in their order."""
    parent = {node: node for node in nodes}

    def root(node: Node) -> Node:
        while parent[node] is not node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for node in parent:
        for operand in node.all_input_nodes:
            if operand in parent:
                parent[root(node)] = root(operand)
    found = defaultdict[Node, list[Node]](list)
    for node in nodes:
        found[root(node)].append(node)
    return found.values()


def _update(component: list[Node], copies: dict[Node, tuple[Node, Node]]) -> Update | None:
    """Return an update, or ``None`` where its tensors do not lie in memory in the same way."""
    nodes = [node for node in component if node not in copies]
    writes = dict(copies[node] for node in component if node in copies)
    own = set(nodes)
    if not nodes or not set(writes.values()) <= own:
        return None
    read = dict.fromkeys(one for node in nodes for one in node.all_input_nodes if one not in own)
    inputs = list(dict.fromkeys([*writes, *(node for node in read if value_of(node).ndim)]))
    if len({layout(value_of(node)) for node in inputs}) > 1:
        return None
    return Update(nodes, writes, inputs, [node for node in read if not value_of(node).ndim])


def _may_be_last(update: Update, aliases: Aliases) -> bool:
    """Return whether an update may wait until the rest of the graph has run.

    It reads nothing that is written to later, except by itself.
    """
    own = {copy for target in update.writes for copy in aliases.writes(target)}
    for node in (*update.inputs, *update.numbers):
        if not set(aliases.writes(node)) <= (own if node in update.writes else set()):
            return False
        if node not in update.writes and aliases.root(node) in update.writes:
            return False
    return True


def _are_tensors(nodes: Iterable[Node]) -> bool:
    return all(isinstance(node.meta.get("val"), Tensor) for node in nodes)


def _is_number(node: Node) -> bool:
    return _are_tensors([node]) and not value_of(node).ndim and value_of(node).is_cpu


def value_of(node: Node) -> Tensor:
    """Return the tensor without data that stands for the value of a node."""
    value: Tensor = node.meta["val"]
    return value
