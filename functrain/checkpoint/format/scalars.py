"""Encode Python scalars as JSON without loss.

JSON has no NaN, no bytes and, in orjson, no integers beyond 64 bits. Such values become an object
with one tag, a key that starts with ``$``. So do the sizes, dtypes and devices of torch and the
scalars of NumPy.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable
from typing import Any

import torch

from functrain.checkpoint.format import numpy_arrays

Json = Any
_PYTHON = frozenset((type(None), bool, int, float, complex, str, bytes))
_TORCH = frozenset((torch.Size, torch.dtype, torch.device))

_DECODERS: dict[str, Callable[[Any], Any]] = {
    "$int": lambda text: int(text, 16),
    "$float": lambda bits: _from_bits(bits),
    "$complex": lambda pair: complex(_from_bits(pair[0]), _from_bits(pair[1])),
    "$bytes": lambda text: base64.b64decode(text, validate=True),
    "$str": lambda text: bytes.fromhex(text).decode("utf-8", "surrogatepass"),
    "$size": lambda sizes: _size(sizes),
    "$dtype": lambda name: _dtype(name),
    "$device": lambda name: _device(name),
    "$numpy": numpy_arrays.decode_scalar,
}


def is_scalar(value: object) -> bool:
    """Return whether :func:`encode_scalar` supports the exact type of a value."""
    cls = type(value)
    return cls in _PYTHON or cls in _TORCH or numpy_arrays.is_numpy_scalar(value)


def encode_scalar(value: Any) -> Json:
    """Encode a scalar as JSON.

    Example:
        >>> encode_scalar(0.5), encode_scalar(float("inf")), encode_scalar(1 << 64)
        (0.5, {'$float': '7ff0000000000000'}, {'$int': '0x10000000000000000'})
    """
    cls = type(value)
    if cls is bool or value is None:
        return value
    if cls is int:
        return value if -(1 << 63) <= value < 1 << 63 else {"$int": hex(value)}
    if cls is float:
        finite = value - value == 0.0
        return value if finite else {"$float": _bits(value)}
    if cls is complex:
        return {"$complex": [_bits(value.real), _bits(value.imag)]}
    if cls is bytes:
        return {"$bytes": base64.b64encode(value).decode()}
    if cls is str:
        return value if _is_utf8(value) else {"$str": value.encode("utf-8", "surrogatepass").hex()}
    if cls is torch.Size:
        return {"$size": list(value)}
    if cls in _TORCH:
        return {f"${cls.__name__}": str(value).removeprefix("torch.")}
    return {"$numpy": numpy_arrays.encode_scalar(value)}


def decode_scalar(json: Json) -> Any:
    """Decode a scalar; inverse of :func:`encode_scalar`.

    Example:
        >>> decode_scalar({"$int": "0x10000000000000000"}) == 1 << 64
        True
    """
    if type(json) in _PYTHON:
        return json
    if type(json) is dict and len(json) == 1:
        tag, text = next(iter(json.items()))
        if tag in _DECODERS:
            try:
                return _DECODERS[tag](text)
            except (TypeError, IndexError, OverflowError, struct.error) as error:
                raise ValueError(f"{json!r} is no scalar") from error
    raise ValueError(f"{str(json)[:80]} is no scalar")


def _bits(value: float) -> str:
    return struct.pack(">d", value).hex()


def _from_bits(text: str) -> float:
    return float(struct.unpack(">d", bytes.fromhex(text))[0])


def _size(sizes: Any) -> torch.Size:
    if type(sizes) is not list or not all(type(size) is int for size in sizes):
        raise ValueError(f"{str(sizes)[:80]} are no sizes")
    return torch.Size(sizes)


def _dtype(name: Any) -> torch.dtype:
    dtype = vars(torch).get(name)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"{name!r} is no dtype")
    return dtype


def _device(name: Any) -> torch.device:
    if type(name) is not str:
        raise ValueError(f"{name!r} is no device")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"{name!r} is no device") from error


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
