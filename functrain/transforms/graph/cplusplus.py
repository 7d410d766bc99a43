"""Elementwise operations of torch as expressions in C++."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch.fx import Node

TYPES = {
    torch.float32: "float",
    torch.float64: "double",
    torch.bool: "bool",
    torch.int64: "long long",
}
# A conditional expression may become a jump around a square root, and a loop with jumps is no
# vector code. With torch 2.11 Inductor asks for C++17, which has no std::bit_cast.
PRELUDE = """#include <cmath>
#include <cstdint>

template <typename T, typename Bits> static inline T blend(bool condition, T one, T other) {
    const Bits mask = -static_cast<Bits>(condition);
    return __builtin_bit_cast(T, static_cast<Bits>(
        (__builtin_bit_cast(Bits, one) & mask) | (__builtin_bit_cast(Bits, other) & ~mask)));
}
static inline float pick(bool condition, float one, float other) {
    return blend<float, std::uint32_t>(condition, one, other);
}
static inline double pick(bool condition, double one, double other) {
    return blend<double, std::uint64_t>(condition, one, other);
}
static inline bool pick(bool condition, bool one, bool other) {
    return (condition & one) | (!condition & other);
}
"""
_ATEN = torch.ops.aten
_POWERS = {
    0.5: "std::sqrt({self})",
    1: "{self}",
    2: "{self} * {self}",
    3: "{self} * {self} * {self}",
}
_LERP = (
    "pick({weight} < ({T})0.5, {self} + {weight} * ({end} - {self}), "
    "{end} - ({end} - {self}) * (({T})1 - {weight}))"
)
_LEAST, _MOST = "pick({self} < {min}, {min}, {self})", "pick({self} > {max}, {max}, {self})"
_AND, _OR, _NOT = "{self} & {other}", "{self} | {other}", "!{self}"

# Arguments have the names of torch's schemas; T is the type of the result, or the one in which
# values are compared. A comparison with NaN is false: so `maximum` and `minimum` return it, `sign`
# gives zero, and `clamp` keeps it, as torch's do.
_TEMPLATES: dict[Any, str] = {
    _ATEN.add.Tensor: "{self} + {alpha} * {other}",
    _ATEN.add.Scalar: "{self} + {alpha} * {other}",
    _ATEN.sub.Tensor: "{self} - {alpha} * {other}",
    _ATEN.sub.Scalar: "{self} - {alpha} * {other}",
    _ATEN.rsub.Tensor: "{other} - {alpha} * {self}",
    _ATEN.rsub.Scalar: "{other} - {alpha} * {self}",
    _ATEN.mul.Tensor: "{self} * {other}",
    _ATEN.mul.Scalar: "{self} * {other}",
    _ATEN.div.Tensor: "{self} / {other}",
    _ATEN.div.Scalar: "{self} / {other}",
    _ATEN.addcmul.default: "{self} + {value} * {tensor1} * {tensor2}",
    _ATEN.addcdiv.default: "{self} + {value} * {tensor1} / {tensor2}",
    _ATEN.lerp.Tensor: _LERP,
    _ATEN.lerp.Scalar: _LERP,
    _ATEN.neg.default: "-{self}",
    _ATEN.abs.default: "std::abs({self})",
    _ATEN.sqrt.default: "std::sqrt({self})",
    _ATEN.reciprocal.default: "({T})1 / {self}",
    _ATEN.sign.default: "({T})(({T})0 < {self}) - ({T})({self} < ({T})0)",
    _ATEN.maximum.default: "pick(({self} != {self}) | ({self} > {other}), {self}, {other})",
    _ATEN.minimum.default: "pick(({self} != {self}) | ({self} < {other}), {self}, {other})",
    _ATEN.where.self: "pick({condition}, {self}, {other})",
    _ATEN.clone.default: "{self}",
    _ATEN._to_copy.default: "{self}",
    _ATEN.zeros_like.default: "0",
    _ATEN.ones_like.default: "1",
    _ATEN.logical_not.default: _NOT,
    _ATEN.bitwise_not.default: _NOT,
    _ATEN.logical_and.default: _AND,
    _ATEN.bitwise_and.Tensor: _AND,
    _ATEN.logical_or.default: _OR,
    _ATEN.bitwise_or.Tensor: _OR,
}
_SIGNS = {"eq": "==", "ne": "!=", "gt": ">", "ge": ">=", "lt": "<", "le": "<="}
_COMPARISONS: dict[Any, str] = {
    getattr(getattr(_ATEN, name), overload): f"{{self}} {sign} {{other}}"
    for name, sign in _SIGNS.items()
    for overload in ("Tensor", "Scalar")
}


def has_expression(node: Node) -> bool:
    """Return whether :func:`expression` knows the operation of a node and its arguments."""
    template = _template(node)
    if template is None:
        return False
    values = [value for name, value in _arguments(node).items() if f"{{{name}}}" in template]
    return all(isinstance(value, Node | bool | int | float) for value in values)


def expression(node: Node, names: Mapping[Node, str]) -> str:
    """Return a node as an expression."""
    template, arguments = _template(node), _arguments(node)
    assert template is not None
    kind = _computed_in(node)

    def operand(name: str, value: Any) -> str:
        if not isinstance(value, Node):
            return f"({kind}){_literal(value)}"
        return f"({'bool' if name == 'condition' else kind}){names[value]}"

    used = {n: operand(n, value) for n, value in arguments.items() if f"{{{n}}}" in template}
    return template.format(T=kind, **used)


def _template(node: Node) -> str | None:
    if node.op != "call_function":
        return None
    if node.target is _ATEN.pow.Tensor_Scalar:
        return _POWERS.get(_arguments(node)["exponent"])
    if node.target is _ATEN.clamp.default:
        given = _arguments(node)
        if given["min"] is None:
            return _MOST
        # torch returns `max` where it is less than `min`.
        return _LEAST if given["max"] is None else _MOST.replace("{self}", _LEAST)
    target: Any = node.target
    return _COMPARISONS.get(target, _TEMPLATES.get(target))


def _computed_in(node: Node) -> str:
    """Return the type in which torch computes a node."""
    dtype = node.meta["val"].dtype
    if node.target in _COMPARISONS:
        given = _arguments(node)
        pair = (one.meta["val"] if isinstance(one, Node) else one for one in given.values())
        dtype = torch.result_type(*pair)
    return TYPES[dtype]


def _arguments(node: Node) -> dict[str, Any]:
    """Return the arguments of a node by name, with those left out."""
    schema: Any = node.target._schema  # type: ignore[union-attr]
    found = {one.name: one.default_value for one in schema.arguments if one.has_default_value()}
    found.update(zip((one.name for one in schema.arguments), node.args, strict=False))
    return {**found, **node.kwargs}


def _literal(value: bool | int | float) -> str:
    if not isinstance(value, float):
        return f"({int(value)})"
    if math.isnan(value):
        return "NAN"
    return f"({value.hex()})" if math.isfinite(value) else f"({'-' * (value < 0)}INFINITY)"
