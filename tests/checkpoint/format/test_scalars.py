"""Scalars come back exactly: type, bits, sign of zero, payload of NaN."""

from __future__ import annotations

import struct
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from functrain.checkpoint.format.scalars import decode_scalar, encode_scalar

any_bits = st.binary(min_size=8, max_size=8).map(lambda bits: struct.unpack("<d", bits)[0])
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(1 << 70), 1 << 70)
    | st.floats()
    | any_bits
    | st.complex_numbers()
    | st.binary(max_size=20)
    | st.text(st.characters(), max_size=20)
)


def exact(value: Any) -> Any:
    """Something that is equal only for scalars of the same type and bits."""
    if isinstance(value, float):
        return "float", struct.pack("<d", value)
    if isinstance(value, complex):
        return "complex", struct.pack("<dd", value.real, value.imag)
    return type(value), value


@given(scalars)
@example(-0.0)
@example(complex(-0.0, float("nan")))
@example((1 << 63) - 1)
@example(1 << 63)
@example(-(1 << 63) - 1)
@example(1 << 100_000)
@example(5e-324)
@example("\ud800$")
@example("a\x00b")
def test_exact_through_json(value: Any) -> None:
    text = orjson.dumps(encode_scalar(value))
    assert exact(decode_scalar(orjson.loads(text))) == exact(value)


@pytest.mark.parametrize(
    "json",
    [
        *({}, [], {"$int": 3}, {"$float": "00"}, {"$what": 1}, {"$complex": []}),
        *({"$bytes": "?"}, {"$int": "0x1", "more": 1}, {"$str": "ff"}, {"$str": None}),
    ],
)
def test_malformed(json: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (orjson, base64 and int raise it as it is)
        decode_scalar(json)
