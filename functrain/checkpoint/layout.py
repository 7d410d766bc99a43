"""Where each tensor goes: its file by role, its name there, its offset; aliases only once."""

from __future__ import annotations

from collections.abc import Hashable
from itertools import accumulate
from typing import Any

import attrs
import orjson
import torch
from torch import Tensor

from functrain.checkpoint.dtypes import BY_NAME, dtype_name, safetensors_entry
from functrain.errors import UnsupportedLeafError
from functrain.tree import Path, path_string

ROLES = ("params", "optimizer", "ema")
_ALIGNMENT = 64


@attrs.frozen(eq=False)
class Part:
    """One tensor in a payload file; ``offset`` counts from the beginning of the file."""

    index: int
    tensor: Tensor
    offset: int
    length: int


@attrs.frozen(eq=False)
class Layout:
    """One payload file before it is written: its header, and its tensors in order."""

    name: str
    header: bytes
    parts: tuple[Part, ...]

    @property
    def length(self) -> int:
        """Length of the file in bytes."""
        return len(self.header) + sum(part.length for part in self.parts)


def role_of(path: Path) -> tuple[str, Path]:
    """The file a leaf goes to, and what is left of its path as its name there.

    Example:
        >>> role_of(("train", "params", "encoder.0.weight"))
        ('params', ('encoder.0.weight',))
        >>> role_of(("counters", "skipped"))
        ('rest', ('counters', 'skipped'))
    """
    for depth, key in enumerate(path[:2]):
        if key in ROLES:
            return str(key), path[depth + 1 :] or path
    return "rest", path


def aliases(tensors: list[tuple[Path, Tensor]]) -> list[int | None]:
    """For every tensor the first one that shows the same memory, or ``None`` if it is that.

    Raises:
        UnsupportedLeafError: a tensor whose values are not in dense memory.
    """
    first: dict[Hashable, int] = {}
    found: list[int | None] = []
    for index, (path, tensor) in enumerate(tensors):
        check(path, tensor)
        earlier = first.setdefault(_memory_shown(tensor), index)
        found.append(None if earlier == index else earlier)
    return found


def layouts(tensors: list[tuple[Path, Tensor]], same: list[int | None]) -> list[Layout]:
    """Plan the payload files.

    Args:
        tensors: all tensors with their paths.
        same: what :func:`aliases` says of them.
    """
    by_role: dict[str, dict[str, int]] = {}
    names: dict[int, tuple[str, str]] = {}
    for index, (path, _) in enumerate(tensors):
        kind, inner = role_of(path)
        group = by_role.setdefault(kind, {})
        name = _unused(readable(path_string(inner)), group)
        group[name] = index
        names[index] = kind, name
    return [
        _layout(kind, group, tensors, same, names)
        for kind, group in by_role.items()
        if any(same[index] is None for index in group.values())
    ]


def readable(text: str) -> str:
    """A text that UTF-8 can hold: lone surrogates are spelled out."""
    return text.encode("utf-8", "backslashreplace").decode()


def check(path: Path, tensor: Tensor) -> None:
    """Refuse a tensor whose values could not be given back exactly.

    Raises:
        UnsupportedLeafError: names path and reason.
    """
    reason = None
    if type(tensor) not in (Tensor, torch.nn.Parameter):
        reason = f"a {type(tensor).__name__}, a subclass of Tensor"
    elif torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        reason = "a tensor inside of vmap or grad"
    elif tensor.is_quantized or tensor.is_nested or dtype_name(tensor.dtype) not in BY_NAME:
        reason = f"a quantized or nested tensor ({tensor.dtype})"
    elif tensor.layout != torch.strided:
        reason = f"a tensor of layout {tensor.layout}"
    elif tensor.is_meta:
        reason = "a meta tensor, which has no values"
    if reason is not None:
        raise UnsupportedLeafError(
            f"{path_string(path)} is {reason}; a checkpoint holds dense tensors. "
            "Convert it before saving"
        )


def _layout(
    kind: str,
    group: dict[str, int],
    tensors: list[tuple[Path, Tensor]],
    same: list[int | None],
    names: dict[int, tuple[str, str]],
) -> Layout:
    # Larger elements first, so that each tensor is aligned without a gap: the format has none.
    own = sorted(
        ((name, index, tensors[index][1]) for name, index in group.items() if same[index] is None),
        key=lambda part: -part[2].element_size(),
    )
    sizes = [tensor.numel() * tensor.element_size() for _, _, tensor in own]
    starts = list(accumulate(sizes, initial=0))
    fields: dict[str, Any] = {"__metadata__": _metadata(kind, group, same, names)}
    for (name, _, tensor), start, size in zip(own, starts, sizes, strict=False):
        dtype, shape = safetensors_entry(tensor.dtype, tuple(tensor.shape))
        fields[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, start + size]}
    header = _header(fields)
    parts = [
        Part(index, tensor, len(header) + start, size)
        for (_, index, tensor), start, size in zip(own, starts, sizes, strict=False)
    ]
    return Layout(f"{kind}.safetensors", header, tuple(parts))


def _metadata(
    kind: str, group: dict[str, int], same: list[int | None], names: dict[int, tuple[str, str]]
) -> dict[str, str]:
    """Which names are ties to others, as ``safetensors.torch.save_model`` writes it."""
    ties = {name: same[index] for name, index in group.items()}
    known = {name: names[target] for name, target in ties.items() if target is not None}
    return {"format": "pt"} | {name: own for name, (role, own) in known.items() if role == kind}


def _header(fields: dict[str, Any]) -> bytes:
    text = orjson.dumps(fields)
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _unused(name: str, used: dict[str, int]) -> str:
    """A name no other tensor of the file has; ``a.b`` can also be the key ``b`` under ``a``."""
    candidate, count = name, 1
    while candidate in used or candidate in ("__metadata__", "format"):
        count += 1
        candidate = f"{name}~{count}"
    return candidate


def _memory_shown(tensor: Tensor) -> Hashable:
    if tensor.numel() == 0:
        return id(tensor)
    where = (tensor.device, tensor.data_ptr(), tensor.is_conj(), tensor.is_neg())
    # The stride of a dimension of size 1 is never used, and views come with any.
    shape = zip(tensor.shape, tensor.stride(), strict=True)
    return (*where, tensor.dtype, *((size, step if size > 1 else 0) for size, step in shape))
