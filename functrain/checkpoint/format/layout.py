"""Plan the payload files: the file, name and offset of each tensor; aliases only once."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import attrs
import orjson
import torch
from torch import Tensor

from functrain.checkpoint.format.dtypes import safetensors_entry
from functrain.tree import Path

ROLES = ("params", "frozen", "optimizer", "ema")
_ALIGNMENT = 64
_RESERVED = ("__metadata__", "format")  # names that the header uses itself


@attrs.frozen(eq=False)
class Layout:
    """The layout of one payload file.

    The offsets are those of each tensor in the file, and finally the length of the file.
    """

    name: str
    header: bytes
    indices: list[int]
    offsets: list[int]

    @property
    def length(self) -> int:
        return self.offsets[-1]


def role_of(path: Path) -> tuple[str, int]:
    """Return the file of a leaf, and how many keys of its path the name in the file omits.

    Example:
        >>> role_of(("train", "params", "encoder.0.weight"))
        ('params', 2)
        >>> role_of(("counters", "skipped"))
        ('rest', 0)
    """
    for depth, key in enumerate(path[:2], start=1):
        if key in ROLES:
            return str(key), depth if depth < len(path) else 0
    return "rest", 0


def layouts(
    tensors: list[tuple[Path, Tensor]],
    names: list[str],
    same: list[int | None],
    frozen: Collection[str] = (),
) -> list[Layout]:
    """Plan the payload files.

    Example:
        >>> import torch
        >>> tensors = [(("params", "w"), torch.ones(2)), (("ema", "w"), torch.ones(2))]
        >>> plan = layouts(tensors, ["params.w", "ema.w"], [None, None])
        >>> [(layout.name, layout.indices) for layout in plan]
        [('params.safetensors', [0]), ('ema.safetensors', [1])]
    """
    by_role: dict[str, dict[str, int]] = {}
    inner: list[tuple[str, str]] = []
    for index, (path, _) in enumerate(tensors):
        role, depth = role_of(path)
        name = names[index]
        if depth:
            before = 0 if depth == 1 else len(utf8_safe(str(path[0]))) + 1
            name = name[before + len(role) + 1 :]
        if names[index] in frozen:
            role = "frozen"
        group = by_role.setdefault(role, {})
        if name in group or name in _RESERVED:
            name = _unused(name, group)
        group[name] = index
        inner.append((role, name))
    return [
        _layout(role, group, tensors, same, inner)
        for role, group in by_role.items()
        if any(same[index] is None for index in group.values())
    ]


def utf8_safe(text: str) -> str:
    """Escape lone surrogates, which UTF-8 cannot encode."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _layout(
    role: str,
    group: dict[str, int],
    tensors: list[tuple[Path, Tensor]],
    same: list[int | None],
    names: list[tuple[str, str]],
) -> Layout:
    # Larger elements first: this aligns every tensor without gaps, which the format forbids.
    own = [(name, index, tensors[index][1]) for name, index in group.items() if same[index] is None]
    own.sort(key=lambda entry: -entry[2].element_size())
    # Names that share the tensor of another name, as ``safetensors.torch.save_model`` writes them.
    ties = {
        name: names[first][1]
        for name, index in group.items()
        if (first := same[index]) is not None and names[first][0] == role
    }
    entries = [(name, tensor.dtype, tuple(tensor.shape)) for name, _, tensor in own]
    header, offsets = safetensors_header(entries, ties)
    return Layout(f"{role}.safetensors", header, [index for _, index, _ in own], offsets)


def safetensors_header(
    tensors: Sequence[tuple[str, torch.dtype, tuple[int, ...]]], metadata: Mapping[str, str]
) -> tuple[bytes, list[int]]:
    """Return the first bytes of a file with these tensors in order, and the offsets of a layout.

    They are padded so that the tensors are aligned when mapped.
    """
    fields: dict[str, Any] = {"__metadata__": {"format": "pt", **metadata}}
    ends = [0]
    for name, dtype, shape in tensors:
        ends.append(ends[-1] + math.prod(shape) * dtype.itemsize)
        kind, sizes = safetensors_entry(dtype, shape)
        fields[name] = {"dtype": kind, "shape": sizes, "data_offsets": ends[-2:]}
    text = orjson.dumps(fields)
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    header = len(text).to_bytes(8, "little") + text
    return header, [len(header) + end for end in ends]


def _unused(name: str, used: dict[str, int]) -> str:
    """Return an unused name; ``a.b`` can be one key or the key ``b`` under ``a``."""
    candidate, count = name, 1
    while candidate in used or candidate in _RESERVED:
        count += 1
        candidate = f"{name}~{count}"
    return candidate
