"""The state of a torch scheduler as plain values that a checkpoint holds exactly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

from functrain.errors import ScheduleStateError

_KINDS: dict[str, Any] = {"tuple": tuple, "dict": dict, "Counter": Counter}


def to_plain(value: Any, path: str = "state_dict") -> Any:
    """Return `value` in dicts with string keys, lists, numbers, strings, bools and None.

    Values without a form in JSON are tagged: a tuple becomes {"kind": "tuple", "items": [...]}, a
    mapping with other keys than strings {"kind": "dict" or "Counter", "items": [[key, value]...]}.

    Example:
        >>> to_plain({"milestones": Counter([30, 80])})
        {'milestones': {'kind': 'Counter', 'items': [[30, 1], [80, 1]]}}
    """
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    if isinstance(value, list):
        return [to_plain(item, f"{path}[{index}]") for index, item in enumerate(value)]
    if type(value) is dict and all(isinstance(key, str) for key in value):
        return {key: to_plain(item, f"{path}.{key}") for key, item in value.items()}
    if type(value) in _KINDS.values():
        items = list(value.items()) if isinstance(value, Mapping) else list(value)
        pairs = [list(item) for item in items] if isinstance(value, Mapping) else items
        return {"kind": type(value).__name__, "items": to_plain(pairs, path)}
    raise ScheduleStateError(
        f"{path} is a {type(value).__name__}: {value!r}. The state of a schedule holds plain "
        "numbers, strings, lists and dicts only, so that it can be saved exactly"
    )


def from_plain(value: Any) -> Any:
    """Return what `to_plain` was given, in fresh containers.

    Example:
        >>> from_plain(to_plain({"betas": (0.9, 0.95)}))
        {'betas': (0.9, 0.95)}
    """
    if isinstance(value, list):
        return [from_plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"kind", "items"} and value["kind"] in _KINDS:
        items = from_plain(value["items"])
        kind = _KINDS[value["kind"]]
        return kind(items) if kind is tuple else kind(dict(items))
    return {key: from_plain(item) for key, item in value.items()}
