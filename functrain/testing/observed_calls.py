"""Call a function that should be pure and detect its side effects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs

from functrain.errors import ImpurityError
from functrain.testing import global_state
from functrain.testing.shared_memory import Extent, extents, overlaps
from functrain.testing.snapshots import Snapshot, changes, snapshot

Inputs = Mapping[str, Any]
_OTHER_SEED = 0x5EED
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


def repeat_with_other_generators(first: Call, call: Callable[[], dict[str, Any]]) -> list[str]:
    """Repeat a call with the global random generators in another state.

    They are named as the cause only if a call with the same generators gives the same result.
    """
    with global_state.other_generators(_OTHER_SEED):
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
