"""Names of dtypes in manifests and in safetensors files."""

from __future__ import annotations

import torch

_ALL = [value for value in vars(torch).values() if isinstance(value, torch.dtype)]

# The names that the safetensors library reads since 0.4.3. It rejects a whole file for one unknown
# name, so dtypes that later versions added (C64, other kinds of F8, F4) are declared as raw bytes.
_SAFETENSORS = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def dtype_name(dtype: torch.dtype) -> str:
    """Return the name of a dtype in a manifest."""
    return DTYPES.get(dtype) or _spelled(dtype)


def _spelled(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


# Not quantized dtypes: their scales are not in the tensor's bytes.
DTYPES = {dtype: _spelled(dtype) for dtype in _ALL if not _spelled(dtype).startswith("q")}
BY_NAME = {name: dtype for dtype, name in DTYPES.items()}


def safetensors_entry(dtype: torch.dtype, shape: tuple[int, ...]) -> tuple[str, list[int]]:
    """Return how a safetensors header declares a tensor.

    Example:
        >>> safetensors_entry(torch.float32, (2, 3))
        ('F32', [2, 3])
        >>> safetensors_entry(torch.complex64, (2, 3))
        ('U8', [2, 3, 8])
    """
    known = _SAFETENSORS.get(dtype)
    return (known, [*shape]) if known else ("U8", [*shape, dtype.itemsize])
