"""Side effects of Python code, which a captured graph would never repeat."""

from __future__ import annotations

import random
import sys
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from functrain.core.module_attributes import Table, joined, tables_of
from functrain.errors import CaptureError
from functrain.transforms.torch_internals import (
    TorchDispatchMode,
    arguments,
    is_in_place,
    tree_leaves,
    tree_map_only,
)

_PLAIN = (bool, int, float, str, bytes, type(None))
_ABSENT: Any = object()


@attrs.frozen(eq=False)
class Effects:
    """The generators of Python and NumPy, and the attributes of a module, at one time."""

    tables: list[Table]
    python: object
    numpy: Any

    @classmethod
    def of(cls, module: nn.Module) -> Effects:
        """As they are now."""
        return cls(tables_of(module), random.getstate(), _numpy_state())

    def undone(self, constants: set[int]) -> str | None:
        """Put the attributes back, and report side effects that a later step would depend on.

        The generators are put back by the scope that a capture runs in.

        ``constants`` are ids of the tensors from outside that were read. A tensor that a forward
        leaves in an attribute, for the loss to find, is no harm, unless it was made of the one
        before.
        """
        changed = []
        for table in self.tables:
            for key in [*table.changed()]:
                if _counts(table, key, constants):
                    name = joined(table.path, key) if table.is_own else table.path
                    changed.append(f"the attribute {name!r} of the module was changed")
            table.put_back()
        if random.getstate() != self.python:
            changed.append("random numbers of Python's `random` were drawn")
        if self.numpy is not None and str(_numpy_state()) != str(self.numpy):
            changed.append("random numbers of `numpy.random` were drawn")
        return "; ".join(changed) or None


def _counts(table: Table, key: Any, constants: set[int]) -> bool:
    """Return whether a later step would depend on a change."""
    if not table.is_own:  # a cache may be filled with what is computed
        return isinstance(table.now, list) or key in table.before
    old = table.before.get(key, getattr(type(table.module), key, _ABSENT))
    now = table.now.get(key, _ABSENT)
    if isinstance(old, Tensor):
        return id(old) in constants
    are_plain = isinstance(old, _PLAIN) and isinstance(now, _PLAIN)
    return are_plain and (type(old), old) != (type(now), now)


def written_constant(graph: GraphModule) -> str | None:
    """Return a tensor from outside the step that a graph writes to: a sentence, or ``None``."""
    constants = {node for node in graph.graph.nodes if node.op == "get_attr"}
    for node in graph.graph.nodes:
        for argument, value in arguments(node.target, node.args, node.kwargs):
            written = constants.intersection(tree_leaves(value)) if argument.is_write else ()
            for one in written:
                return (
                    f"a tensor of shape {list(getattr(graph, one.target).shape)} that is neither "
                    "parameter, buffer nor batch is written to (make it a buffer of the module)"
                )
    return None


def grown_unseen(graph: GraphModule) -> str | None:
    """Return an operation that will give a tensor another shape: a sentence, or ``None``.

    The observer of fake quantization by channel resizes its empty minimum and maximum when it sees
    values, but not on the tensors without data of a capture.
    """
    for node in graph.graph.nodes:
        if node.target is torch.ops.aten._fused_moving_avg_obs_fq_helper.default and any(
            argument.is_write and value.meta["val"].numel() == 0
            for argument, value in arguments(node.target, node.args, node.kwargs)
        ):
            return (
                "an observer of quantization changes the shape of its buffers at its first "
                "forward, and a graph needs them alike. Make the first step with the eager "
                "program and go on from its state"
            )
    return None


def _numpy_state() -> Any:
    # Its state can only have changed where somebody has imported it.
    numpy = sys.modules.get("numpy")
    return None if numpy is None else numpy.random.get_state(legacy=False)


_FIRST = 1 << 62  # no seed that anybody would choose


class SameDraws(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within it, a random operation from the same state of the generator gives the same tensor.

    Tensors without data draw nothing, so the generator is moved on here, by seeding it with a
    number that counts the draws; the capture must put it back.

    Attributes:
        draws: whether anything was drawn, or may be by an operation that is not torch's own.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.draws = False
        # The draw at a state of the generator, and the state afterwards.
        self._drawn: dict[Any, tuple[Any, int]] = {}
        self._last = _FIRST

    def __enter__(self) -> SameDraws:
        torch.default_generator.manual_seed(_FIRST)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.draws |= func.namespace not in ("aten", "prim", "prims")
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        self.draws = True
        seed = torch.initial_seed()
        if not _FIRST <= seed <= self._last:
            raise CaptureError("torch's generator was seeded within the step", None)
        key = (func, seed, str(tree_map_only(Tensor, _form, (args, kwargs))))
        if key not in self._drawn:
            self._last += 1
            drawn = _draw(func, args, kwargs)
            # The caller may write to its tensor.
            self._drawn[key] = (tree_map_only(Tensor, Tensor.clone, drawn), self._last)
            torch.default_generator.manual_seed(self._last)
            return drawn
        again, after = self._drawn[key]
        torch.default_generator.manual_seed(after)
        again = tree_map_only(Tensor, Tensor.clone, again)
        return args[0].copy_(again) if is_in_place(func) else again


@torch.library.custom_op("functrain::bernoulli", mutates_args=())
def bernoulli(like: Tensor, p: float = 0.5) -> Tensor:
    """Return ``torch.empty_like(like).bernoulli_(p)``.

    torch 2.13's Inductor may order what reads the tensor before what fills it, where both fuse.
    """
    return torch.empty_like(like).bernoulli_(p)


@bernoulli.register_fake
def _(like: Tensor, p: float = 0.5) -> Tensor:
    return torch.empty_like(like)


def _draw(func: Any, args: Any, kwargs: Any) -> Any:
    """Call a random operation; the mask of a dropout on the CPU by :func:`bernoulli`."""
    of_dropout = func is torch.ops.aten.bernoulli_.float and args[0].is_cpu and not kwargs
    return args[0].copy_(bernoulli(*args)) if of_dropout else func(*args, **kwargs)


def _form(tensor: Tensor) -> tuple[Any, ...]:
    return (tensor.shape, tensor.dtype, tensor.device)
