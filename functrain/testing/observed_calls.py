"""Call a function that should be pure and detect its side effects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import attrs
import torch
from torch import Tensor

from functrain.errors import ImpurityError
from functrain.testing import global_state
from functrain.testing.object_leaves import leaves
from functrain.testing.snapshots import Snapshot, changes, snapshot
from functrain.tree.objects import is_array
from functrain.tree.placed import local

Inputs = Mapping[str, Any]
_OTHER_SEEDS = dict.fromkeys(("torch", "random", "numpy"), 0x5EED)
_MOST = 12  # findings in a message; the rest is counted
_DIFFERS = "differs between two calls"
_ADVICE = "check_complete(program, batch=...) names what influences a step besides its arguments"


@attrs.frozen
class Call:
    """One call: its results by name, a sentence about each side effect, and the result's bytes."""

    result: dict[str, Any]
    findings: list[str]
    values: Snapshot


def watch_call(
    call: Callable[[], dict[str, Any]],
    inputs: Inputs,
    unwatched: Callable[[str], bool] = lambda place: False,
) -> Call:
    """Make a call and detect changes to its inputs and to global state.

    The global state is restored. Places that are ``unwatched`` may change.
    """
    before = snapshots(inputs)
    with global_state.preserved() as globals_before:
        result = call()
        globally = global_state.changed(globals_before, global_state.capture())
    found = [
        f"{change.place} was changed: {change.detail}"
        for change in changes(before, snapshots(inputs))
        if not unwatched(change.place)
    ]
    return Call(result, [*found, *globally], snapshots(result))


def repeat_call(
    first: Call, call: Callable[[], dict[str, Any]], shows: str = _DIFFERS
) -> list[str]:
    """Make the same call again, with equal inputs, and compare the results bit for bit."""
    with global_state.preserved():
        second = snapshots(call())
    found = [f"{c.place} {shows}: {c.detail}" for c in changes(first.values, second, "{} and {}")]
    later = changes(first.values, snapshots(first.result))
    return found + [f"{c.place} was changed by the next call: {c.detail}" for c in later]


def repeat_twice(
    first: Call, call: Callable[[], dict[str, Any]], again: Callable[[], dict[str, Any]]
) -> list[str]:
    """Repeat a call, and again with the global random generators in another state.

    They are named as the cause only if calls with the same generators give the same result.
    """
    return repeat_call(first, call) or repeat_with_other_generators(first, again)


def repeat_with_other_generators(first: Call, call: Callable[[], dict[str, Any]]) -> list[str]:
    """Repeat a call with the global random generators in another state."""
    with global_state.preserved():
        global_state.seed(_OTHER_SEEDS)
        found = repeat_call(first, call, "depends on the state of a global random generator")
    return found and (repeat_call(first, call) or found)


def shared(
    results: Inputs,
    others: Inputs,
    allowed: Callable[[str, str], bool] = lambda one, other: False,
) -> list[str]:
    """Describe which results share memory with other values."""
    pairs = overlaps(_extents(results), _extents(others))
    return [f"{one} shares memory with {other}" for one, other in pairs if not allowed(one, other)]


def refuse(subject: str, findings: list[str]) -> None:
    """Raise an error if there are findings."""
    if findings:
        more = len(findings) - _MOST
        shown = findings[:_MOST] + ([f"... and {more} more"] if more > 0 else [])
        unexplained = any(f" {_DIFFERS}: " in each for each in findings)
        raise ImpurityError(subject, shown, _ADVICE if unexplained else "")


def snapshots(values: Inputs) -> Snapshot:
    """Take one snapshot of several values."""
    return {k: leaf for name, value in values.items() for k, leaf in snapshot(value, name).items()}


def _extents(values: Inputs) -> Iterable[Extent]:
    return [extent for name, value in values.items() for extent in extents(value, name)]


class Extent(NamedTuple):
    """The bytes that a leaf spans."""

    device: str
    start: int
    stop: int
    place: str


def extents(value: Any, name: str) -> list[Extent]:
    """Return the bytes that the tensors and arrays of a value span."""
    found = [_extent(place, leaf) for place, leaf in leaves(value, name)]
    return [extent for extent in found if extent is not None]


def overlaps(first: Iterable[Extent], second: Iterable[Extent]) -> list[tuple[str, str]]:
    """Return pairs of places, one of each value, whose bytes overlap.

    Example:
        >>> weight = torch.zeros(4)
        >>> overlaps(extents({"w": weight}, "new"), extents([weight[2:]], "old"))
        [("new['w']", 'old[0]')]
    """
    events = sorted(
        [(extent, 0) for extent in first] + [(extent, 1) for extent in second],
        key=lambda event: event[0][:3],
    )
    active: tuple[list[Extent], list[Extent]] = ([], [])
    found = []
    for extent, side in events:
        other = active[1 - side]
        other[:] = [each for each in other if _reaches(each, extent)]
        pairs = [(extent, each) if side == 0 else (each, extent) for each in other]
        found += [(one.place, two.place) for one, two in pairs]
        active[side].append(extent)
    return sorted(found)


def _reaches(earlier: Extent, later: Extent) -> bool:
    return earlier.device == later.device and earlier.stop > later.start


def _extent(place: str, leaf: Any) -> Extent | None:
    if is_array(leaf):
        leaf = _as_tensor(leaf)
    leaf = local(leaf)
    if not isinstance(leaf, Tensor) or leaf.layout is not torch.strided or not leaf.numel():
        return None
    try:
        start = leaf.data_ptr()
    except RuntimeError:  # a subclass without memory of its own
        return None
    last = sum((size - 1) * step for size, step in zip(leaf.shape, leaf.stride(), strict=True))
    return Extent(str(leaf.device), start, start + (last + 1) * leaf.element_size(), place)


def _as_tensor(array: Any) -> Tensor | None:
    # Skip read-only arrays, about which from_numpy would warn: only the address is needed.
    if not array.flags.writeable or not array.size:
        return None
    try:
        return torch.from_numpy(array)
    except (TypeError, ValueError):  # text, objects, reversed views
        return None
