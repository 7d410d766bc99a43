"""Which nodes of a graph share memory, and which write to it."""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch
from torch.fx import Graph, Node
from torch.fx.node import map_arg


class Aliases:
    """Views, writes and last uses, by the schemas of the operations.

    An operation without a schema may write to all that it is given.

    Args:
        graph: a graph of torch's operations; not changed here, and not to be changed meanwhile.
    """

    def __init__(self, graph: Graph) -> None:
        self.order = {node: number for number, node in enumerate(graph.nodes)}
        self._roots: dict[Node, Node] = {}
        self._writes = defaultdict[Node, list[Node]](list)
        self._last: dict[Node, Node] = {}
        for node in graph.nodes:
            for operand in node.all_input_nodes:
                self._last[self.root(operand)] = node
            for written in _written(node):
                self._writes[self.root(written)].append(node)
            if (viewed := _viewed(node)) is not None:
                self._roots[node] = self.root(viewed)

    def root(self, node: Node) -> Node:
        """Return the node in whose memory the value of another lies."""
        return self._roots.get(node, node)

    def writes(self, node: Node) -> list[Node]:
        """Return the nodes that write to the memory of one."""
        return self._writes.get(self.root(node), [])

    def last_use(self, node: Node) -> Node | None:
        """Return the last node that is given the memory of one."""
        return self._last.get(self.root(node))

    def is_unchanged(self, node: Node, until: Node) -> bool:
        """Return whether nothing writes to a value before another node."""
        return all(self.order[one] > self.order[until] for one in self.writes(node))


def is_pure(node: Node) -> bool:
    """Return whether a node is a function of its arguments, with memory of its own."""
    schema = _schema(node)
    if schema is None or torch.Tag.nondeterministic_seeded in node.target.tags:  # type: ignore[union-attr]
        return False
    return not schema.is_mutable and _viewed(node) is None


def _schema(node: Node) -> Any:
    return getattr(node.target, "_schema", None) if node.op == "call_function" else None


def _written(node: Node) -> Iterator[Node]:
    if node.op != "call_function" or node.target is operator.getitem:
        return
    if (schema := _schema(node)) is None:
        yield from node.all_input_nodes
        return
    for argument, value in _given(schema, node):
        if argument.is_write:
            yield from _nodes(value)


def _viewed(node: Node) -> Node | None:
    """Return the node that a view is a view of."""
    if node.target is operator.getitem:
        return node.all_input_nodes[0]
    schema = _schema(node)
    if schema is None or all(one.alias_info is None for one in schema.returns):
        return None
    pairs = _given(schema, node)
    found = [one for arg, value in pairs if arg.alias_info for one in _nodes(value)]
    return found[0] if found else None


def _given(schema: Any, node: Node) -> Iterator[tuple[Any, Any]]:
    for number, argument in enumerate(schema.arguments):
        if number < len(node.args):
            yield argument, node.args[number]
        elif argument.name in node.kwargs:
            yield argument, node.kwargs[argument.name]


def _nodes(value: Any) -> list[Node]:
    found: list[Node] = []
    map_arg(value, found.append)
    return found
