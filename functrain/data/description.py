"""Describe data for a checkpoint, so that a resumed run can notice that it has changed.

A fingerprint of the contents is a hash of a few of their bytes. It reads tensors, arrays and tables
as they are stored, without calling user code, so it draws no random numbers, advances no loader and
does not depend on augmentation. A change to bytes that it does not read goes unnoticed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset
from xxhash import xxh3_128

from functrain.data import hugging_face
from functrain.data.mixture import MixtureSource
from functrain.data.source import Source

_MANY = 32  # items of a sequence, blocks of a tensor
_BLOCK = 128  # elements
_MOST = 256  # tensors, arrays and texts in all
_DEEPEST = 8
_PLAIN = (str, bytes, int, float, complex, type(None), os.PathLike)


def describe(source: Source) -> dict[str, int | str | None]:
    """Return batches in an epoch, batch size, seed, order and contents, as far as known.

    The position of a run counts batches. If the data changes, a resumed run reads other samples
    at its position: some twice in that epoch, some not at all.
    """
    return {**outline(source), "contents": fingerprint(_innermost(source))}


def outline(source: Source) -> dict[str, int | str | None]:
    """Return batches in an epoch, batch size, seed and order, without a look at the contents."""
    data = _innermost(source)
    return {
        "batches_in_an_epoch": source.length,
        "batch_size": _whole(getattr(data, "batch_size", None)),
        "seed": _whole(getattr(data, "seed", None)),
        "order": _order(data),
    }


def differences(before: Any, now: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield (name, before, now) where two descriptions differ and both know a value."""
    for name in now if isinstance(before, dict) else ():
        # Unknown values, or those that an earlier version did not record, are no difference.
        unknown = name not in before or (name in ("order", "contents") and now[name] is None)
        if not unknown and before[name] != now[name] and before[name] is not None:
            yield name, before[name], now[name]


def _order(data: Any) -> str | None:
    sampler = getattr(data, "sampler", None)
    if sampler is not None:
        return type(sampler).__name__
    shuffle = getattr(data, "shuffle", None)
    return {True: "shuffled", False: "in order"}.get(shuffle) if shuffle in (True, False) else None


def _innermost(source: Any) -> Any:
    if isinstance(source, MixtureSource):
        return source.mixture
    held = getattr(source, "batches", getattr(source, "data", None))
    return _innermost(held) if hasattr(held, "replays") else held


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def fingerprint(data: Any) -> str | None:
    """Return a fingerprint of the contents of data, the same in any process.

    ``Batches`` and loaders are read through their dataset, mixtures through their sources. Returns
    ``None`` for iterators and other code that computes batches.

    Example:
        >>> import torch
        >>> zeros = fingerprint([torch.zeros(3)])
        >>> zeros == fingerprint([torch.zeros(3)]), zeros == fingerprint([torch.ones(3)])
        (True, False)
    """
    reading = _Reading()
    if isinstance(data, list | tuple):
        reading.value("", data, 0)
    elif (held := getattr(data, "sources", getattr(data, "dataset", None))) is not None:
        reading.value("", held, 0)
    return reading.hash.hexdigest()[:16] if reading.found else None


@attrs.define(eq=False)
class _Reading:
    """A hash being computed."""

    hash: xxh3_128 = attrs.field(factory=xxh3_128)
    found: int = 0

    def value(self, name: str, value: Any, depth: int) -> None:
        """Hash a value of any kind, ignoring unknown kinds."""
        if depth > _DEEPEST or self.found >= _MOST:
            return
        if isinstance(value, Tensor | np.ndarray):
            self._array(name, value, depth)
        elif isinstance(value, _PLAIN):
            self._feed(f"{name}:{_text(value)}".encode(errors="replace"))
        else:
            for part, child in _parts(value):
                self.value(f"{name}.{part}", child, depth + 1)

    def _array(self, name: str, array: Any, depth: int) -> None:
        self._feed(f"{name}:{array.dtype}{tuple(array.shape)}".encode())
        if isinstance(array, Tensor):
            if type(array) in (Tensor, nn.Parameter) and _is_readable(array):
                self.hash.update(_bytes_of_tensor(array.detach()))
        elif array.dtype.hasobject:
            picked = [array.flat[index] for index in _picks(array.size)]
            self.value(name, picked, depth + 1)
        else:
            flat = array.flat[_spread(array.size)] if array.size > _MANY * _BLOCK else array
            self.hash.update(flat.tobytes())

    def _feed(self, data: bytes) -> None:
        self.hash.update(data)
        self.found += 1


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the contents of a container, or the attributes of an object that hold data."""
    if hugging_face.is_dataset(value):
        rows = value.with_format("arrow")  # as they are stored: no transform, nothing decoded
        yield "length", len(value)
        yield from ((str(index), rows[index].to_pylist()) for index in _picks(len(value)))
    elif type(value).__module__.partition(".")[0] == "pandas" and hasattr(value, "iloc"):
        yield "columns", [str(name) for name in getattr(value, "columns", ())]
        yield "length", len(value)
        yield "rows", value.iloc[_picks(len(value))].to_numpy(object)
    elif isinstance(value, Mapping):
        keys = sorted(key for key in value if isinstance(key, str))
        yield from ((keys[index], value[keys[index]]) for index in _picks(len(keys)))
    elif isinstance(value, list | tuple | range):
        yield "length", len(value)
        yield from ((str(index), value[index]) for index in _picks(len(value)))
    elif isinstance(value, DataLoader):
        yield "dataset", value.dataset
    elif not isinstance(value, nn.Module | IterableDataset | type | Callable):
        yield from _attributes(value)


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the attributes of a dataset that hold data, without counters, caches and options."""
    slots = {name for cls in type(value).__mro__ for name in getattr(cls, "__slots__", ())}
    for name in sorted(slots | getattr(value, "__dict__", {}).keys()):
        hidden = name.startswith("_") or "cache" in name or "buffer" in name
        if not hidden and not isinstance(held := getattr(value, name, None), _PLAIN):
            yield name, held


def _picks(length: int) -> list[int]:
    """Return the indices of the items to read: the first, the last, and some between."""
    if length <= _MANY:
        return list(range(length))
    return [index * (length - 1) // (_MANY - 1) for index in range(_MANY)]


def _spread(size: int) -> Any:
    """Return the indices of the elements to read: blocks, including the first and the last."""
    starts = np.arange(_MANY) * (size - _BLOCK) // (_MANY - 1)
    return (starts[:, None] + np.arange(_BLOCK)).reshape(-1)


def _is_readable(tensor: Tensor) -> bool:
    plain = tensor.layout == torch.strided and not tensor.is_quantized
    return plain and tensor.device.type != "meta"


def _bytes_of_tensor(tensor: Tensor) -> bytes:
    if tensor.numel() > _MANY * _BLOCK:
        tensor = tensor.take(torch.from_numpy(_spread(tensor.numel())).to(tensor.device))
    flat = tensor.cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes()


def _text(value: Any) -> str:
    """Return a plain value as text; of an absolute path only its last two parts."""
    if isinstance(value, str | os.PathLike):
        text = os.fspath(value)
        if isinstance(text, str) and os.path.isabs(text):
            text = "/".join(text.split(os.sep)[-2:])
        return f"{len(text)}:{text[:4096]!r}"
    return f"{len(value)}:{value[:4096]!r}" if isinstance(value, bytes) else repr(value)
