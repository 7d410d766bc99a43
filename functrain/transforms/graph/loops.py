"""A library that updates parameters after the rest of a graph: one loop for each rule, in C++."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import attrs
import torch
from torch import Tensor
from torch.fx import Node

from functrain.transforms.graph.cplusplus import PRELUDE, TYPES, expression

Layout = tuple[int, ...]

_PARALLEL = 1 << 16  # elements from which another thread is worth its start
_RULE = """
static void rule@(long long begin, long long end, void* const* p, const int* at) {{
{pointers}
    for (long long i = begin; i < end; ++i) {{
{formulas}
    }}
}}
"""
_RUN = """
struct Update {{
    void (*rule)(long long, long long, void* const*, const int*);
    long long size;
    int first;
}};
static const int places[] = {{{places}}};
static const Update updates[] = {{{updates}}};

static void update(void* const* p) {{
{parallel}
    for (int part = 0; part < {parts}; ++part)
        for (const Update& one : updates)
            one.rule(
                one.size * part / {parts}, one.size * (part + 1) / {parts}, p, places + one.first);
}}
"""


@attrs.frozen
class Updates:
    """A library to be compiled that updates what a graph is given, after the graph was called.

    Attributes:
        source: in C++.
        given: how many tensors it takes: those of the graph, and those that the graph returns last.
        layouts: of the latter.
    """

    source: str
    given: int
    layouts: list[Layout]

    def after(self, rest: Callable[..., Any], update: Callable[..., None]) -> Callable[..., Any]:
        """Return a function that calls the rest of the graph, and then the library.

        It raises ``RuntimeError``, and updates nothing, if the graph returns other layouts.
        """
        is_checked = False  # a compiled graph returns the same layouts each time

        def both(*leaves: Tensor) -> list[Tensor]:
            nonlocal is_checked
            found: list[Tensor] = rest(*leaves)
            count = len(found) - len(self.layouts)
            read = found[count:]
            if not is_checked:
                got = list(map(layout, read))
                if got != self.layouts:  # also under python -O: the library reads by these strides
                    raise RuntimeError(f"expected tensors laid out as {self.layouts}, got {got}")
                is_checked = True
            update(*leaves, *read)
            return found[:count]

        return both


def layout(tensor: Tensor) -> Layout:
    """Return shape and strides of a tensor, without the strides of dimensions of size 1."""
    pairs = zip(tensor.shape, tensor.stride(), strict=True)
    return (*tensor.shape, *(stride for size, stride in pairs if size != 1))


class Update(NamedTuple):
    """The formulas that write to one parameter, with others of its shape that share some.

    Attributes:
        nodes: formulas in their order.
        writes: the inputs of the graph that are written to, with their new values.
        inputs: tensors of the same layout that it reads or writes.
        numbers: tensors without dimensions that it reads.
    """

    nodes: list[Node]
    writes: dict[Node, Node]
    inputs: list[Node]
    numbers: list[Node]


def source(updates: Sequence[Update], given: Sequence[Node]) -> str:
    """Return the source of ``update(void* const* p)``.

    Every thread updates a part of each parameter. All values are computed before one is written.

    The values of the nodes are given as the addresses ``p``.
    """
    index = {node: number for number, node in enumerate(given)}
    rules, places, rows = dict[str, int](), list[int](), list[str]()
    for one in updates:
        number = rules.setdefault(_body(one), len(rules))
        size = math.prod(one.inputs[0].meta["val"].shape)
        rows.append(f"{{rule{number}, {size}, {len(places)}}}")
        places += [index[node] for node in (*one.inputs, *one.numbers)]
    total = sum(math.prod(one.inputs[0].meta["val"].shape) for one in updates)
    parts = torch.get_num_threads() if total >= _PARALLEL else 1
    parallel = f"#pragma omp parallel for num_threads({parts})" if parts > 1 else ""
    functions = [body.replace("@", str(number)) for body, number in rules.items()]
    ending = _RUN.format(
        places=", ".join(map(str, places)), updates=", ".join(rows), parallel=parallel, parts=parts
    )
    return "".join([PRELUDE, *functions, ending])


def _body(update: Update) -> str:
    """Return the function of a rule; equal rules of other parameters have the same."""
    names: dict[Node, str] = {}
    pointers, formulas = list[str](), list[str]()
    for place, node in enumerate(update.inputs):
        kind = ("" if node in update.writes else "const ") + _type(node)
        pointers.append(f"{kind}* __restrict x{place} = static_cast<{kind}*>(p[at[{place}]]);")
        names[node] = f"x{place}[i]"
    for place, node in enumerate(update.numbers, len(update.inputs)):
        kind = f"const {_type(node)}"
        pointers.append(f"{kind} x{place} = *static_cast<{kind}*>(p[at[{place}]]);")
        names[node] = f"x{place}"
    for number, node in enumerate(update.nodes):
        formulas.append(f"const {_type(node)} y{number} = {expression(node, names)};")
        names[node] = f"y{number}"
    formulas += [f"{names[target]} = {names[value]};" for target, value in update.writes.items()]
    return _RULE.format(pointers=_indented(pointers, 4), formulas=_indented(formulas, 8))


def _type(node: Node) -> str:
    return TYPES[node.meta["val"].dtype]


def _indented(lines: list[str], by: int) -> str:
    return "\n".join(" " * by + line for line in lines)
