"""Encode NumPy arrays and scalars, preserving dtype, bytes and memory order."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

Json = Any

# Booleans, numbers, times, strings and raw bytes; never objects, whose values are pointers.
_SIMPLE = re.compile(r"[<>|][biufcmMSUV][0-9]{1,9}(\[[0-9]{0,9}[a-zA-Z]{1,8}\])?")
_DEEPEST = 8
_MOST_DIMENSIONS = 64
_NATIVE = {
    np.dtype(name).str: getattr(torch, name)
    for name in (
        *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float16", "float32", "float64", "complex64", "complex128"),
    )
}


def is_array(value: object) -> bool:
    """Return whether a value is a plain NumPy array, not a subclass."""
    return type(value) is np.ndarray


def is_numpy_scalar(value: object) -> bool:
    """Return whether a value is a NumPy scalar, such as ``np.float32(1)``."""
    return isinstance(value, np.generic) and type(value).__module__ == "numpy"


def outline(array: Any) -> dict[str, Json]:
    """Describe an array without its values: shape and dtype."""
    return {"shape": list(array.shape), "dtype": encode_dtype(array.dtype)}


def values_of(array: Any) -> Tensor:
    """Return the memory of an array as a tensor.

    For dtypes that torch lacks, the tensor has raw bytes in an additional dimension. It is a view
    wherever torch can make one, so arrays that share memory share it as tensors too.
    """
    size = array.dtype.itemsize
    regular = all(step >= 0 and step % size == 0 for step in array.strides)
    # Tensors have no read-only flag, so torch warns about views of read-only arrays.
    if not (regular and array.flags.writeable and array.flags.aligned):
        array = array.copy(order="K")
    if array.dtype.str not in _NATIVE or array.dtype.names:
        array = array[..., None].view(np.uint8)
    return torch.from_numpy(array)


def build(scalars: Mapping[str, Json], values: Tensor) -> Any:
    """Build the array that :func:`outline` and :func:`values_of` describe, in their memory."""
    dtype, shape = decode_dtype(scalars.get("dtype")), scalars.get("shape")
    if type(shape) is not list:
        raise ValueError(f"{shape!r} is no shape")
    native = None if dtype.names else _NATIVE.get(dtype.str)
    expected = (shape, native) if native else ([*shape, dtype.itemsize], torch.uint8)
    if (list(values.shape), values.dtype) != expected:
        raise ValueError(f"an array of dtype {dtype} and shape {shape} has other values")
    if dtype.itemsize == 0 or len(shape) > _MOST_DIMENSIONS - 1:
        raise ValueError(f"there are no arrays of dtype {dtype} and shape {shape}")
    array = values.detach().cpu().numpy()
    return array if native else array.view(dtype)[..., 0]


def encode_scalar(value: Any) -> Json:
    """Encode a NumPy scalar as its dtype and its bytes."""
    # NumPy drops trailing zeros from the dtype and the bytes of a string scalar.
    if value.dtype.kind == "S":
        return [f"|S{len(value)}", bytes(value).hex()]
    if value.dtype.kind == "U":
        return [f"<U{len(value)}", value.encode("utf-32-le", "surrogatepass").hex()]
    return [encode_dtype(value.dtype), value.tobytes().hex()]


def decode_scalar(json: Json) -> Any:
    """Decode a NumPy scalar; inverse of :func:`encode_scalar`."""
    if type(json) is not list or len(json) != 2 or type(json[1]) is not str:
        raise ValueError(f"{str(json)[:80]} is no NumPy scalar")
    dtype, data = decode_dtype(json[0]), bytes.fromhex(json[1])
    if len(data) != dtype.itemsize:
        raise ValueError(f"a NumPy scalar of {dtype} has {len(data)} bytes")
    if dtype.kind == "S" or (dtype.kind == "V" and not dtype.names):
        return dtype.type(data)
    if dtype.kind == "U":
        encoding = "utf-32-be" if dtype.str.startswith(">") else "utf-32-le"
        return np.str_(data.decode(encoding, "surrogatepass"))
    return np.frombuffer(bytearray(data), dtype).reshape(())[()]


def encode_dtype(dtype: Any) -> Json:
    """Encode a NumPy dtype as its string or a list of fields; refuse one that would change."""
    json = _lists(dtype.descr) if dtype.names else dtype.str
    plain = getattr(dtype.type, "__name__", "") != "record"
    if not plain or decode_dtype(json) != dtype:
        raise ValueError(f"a NumPy dtype ({dtype}) that cannot be restored from its description")
    return json


def decode_dtype(json: Json, depth: int = 0) -> Any:
    """Decode a NumPy dtype, but never one with Python objects."""
    try:
        if type(json) is str and _SIMPLE.fullmatch(json):
            return np.dtype(json)
        if type(json) is list and depth < _DEEPEST:
            return np.dtype([_field(field, depth) for field in json])
    except (TypeError, OverflowError) as error:
        raise ValueError(f"{str(json)[:80]} is no NumPy dtype: {error}") from error
    raise ValueError(f"{str(json)[:80]} is no NumPy dtype that a checkpoint holds")


def _field(json: Json, depth: int) -> tuple[Any, ...]:
    if type(json) is not list or len(json) not in (2, 3) or type(json[0]) is not str:
        raise ValueError(f"{str(json)[:80]} is no field of a NumPy dtype")
    json[0].encode()  # raises on lone surrogates, which JSON cannot hold
    shape = json[2] if len(json) == 3 else []
    if type(shape) is not list or not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"{shape!r} is no shape")
    form = decode_dtype(json[1], depth + 1)
    return (json[0], form, tuple(shape)) if len(json) == 3 else (json[0], form)


def _lists(value: Any) -> Any:
    return [_lists(each) for each in value] if isinstance(value, (list, tuple)) else value
