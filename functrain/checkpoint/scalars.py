"""Python scalars as JSON that gives them back exactly.

JSON has no NaN, no bytes and, as orjson reads it, no integer beyond 64 bits. Such values are
written as an object with one tag, a key that starts with ``$``.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable
from typing import Any

Json = Any

_DECODERS: dict[str, Callable[[Any], Any]] = {
    "$int": lambda text: int(text, 16),
    "$float": lambda bits: _from_bits(bits),
    "$complex": lambda pair: complex(_from_bits(pair[0]), _from_bits(pair[1])),
    "$bytes": lambda text: base64.b64decode(text, validate=True),
    "$str": lambda text: bytes.fromhex(text).decode("utf-8", "surrogatepass"),
}


def is_scalar(value: object) -> bool:
    """Whether a value is of exactly a type that :func:`encode_scalar` knows; subclasses are not."""
    return value is None or type(value) in (bool, int, float, complex, str, bytes)


def encode_scalar(value: Any) -> Json:
    """A scalar as JSON.

    Args:
        value: ``None``, bool, int, float, complex, str or bytes.

    Returns:
        The value itself where JSON can hold it, else an object with one tag.

    Example:
        >>> encode_scalar(0.5), encode_scalar(float("inf")), encode_scalar(1 << 64)
        (0.5, {'$float': '7ff0000000000000'}, {'$int': '0x10000000000000000'})
    """
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return value if -(1 << 63) <= value < 1 << 63 else {"$int": hex(value)}
    if isinstance(value, float):
        finite = value - value == 0.0
        return value if finite else {"$float": _bits(value)}
    if isinstance(value, complex):
        return {"$complex": [_bits(value.real), _bits(value.imag)]}
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode()}
    return value if _is_utf8(value) else {"$str": value.encode("utf-8", "surrogatepass").hex()}


def decode_scalar(json: Json) -> Any:
    """The scalar that JSON stands for; inverse of :func:`encode_scalar`.

    Raises:
        ValueError: it stands for none.

    Example:
        >>> decode_scalar({"$int": "0x10000000000000000"}) == 1 << 64
        True
    """
    if is_scalar(json):
        return json
    if isinstance(json, dict) and len(json) == 1:
        tag, text = next(iter(json.items()))
        if tag in _DECODERS:
            try:
                return _DECODERS[tag](text)
            except (TypeError, IndexError, struct.error) as error:
                raise ValueError(f"{json!r} is no scalar") from error
    raise ValueError(f"{str(json)[:80]} is no scalar")


def _bits(value: float) -> str:
    return struct.pack(">d", value).hex()


def _from_bits(text: str) -> float:
    return float(struct.unpack(">d", bytes.fromhex(text))[0])


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
