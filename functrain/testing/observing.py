"""Calls of a function that should be pure, and what they did besides returning a value."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs

from functrain.errors import ImpurityError
from functrain.testing import surroundings
from functrain.testing.comparing import Snapshot, changes, snapshot
from functrain.testing.sharing import Extent, extents, overlaps

Inputs = Mapping[str, Any]
_OTHER_SEED = 0x5EED
_MOST = 12  # findings told; the rest is counted
_DIFFERS = "differs between two calls"
_ADVICE = "check_complete(program, batch=...) names what a step goes by besides its arguments"


@attrs.frozen
class Call:
    """One call.

    Attributes:
        result: what it returned, by name.
        findings: what it changed, in sentences.
        values: the bytes of the result, before any later call can write to them.
    """

    result: dict[str, Any]
    findings: list[str]
    values: Snapshot


def observed(
    call: Callable[[], dict[str, Any]],
    inputs: Inputs,
    unwatched: Callable[[str], bool] = lambda place: False,
) -> Call:
    """Make a call and see what became of its inputs and of the global state.

    Args:
        call: returns its results by name.
        inputs: by name; none of their bytes, elements or attributes may change.
        unwatched: places that may.

    Returns:
        The call. The global state is as it was before.
    """
    before = snapshots(inputs)
    with surroundings.put_back() as globals_before:
        result = call()
        globally = surroundings.changed(globals_before, surroundings.captured())
    found = [
        f"{change.place} was changed: {change.detail}"
        for change in changes(before, snapshots(inputs))
        if not unwatched(change.place)
    ]
    return Call(result, [*found, *globally], snapshots(result))


def repeated(first: Call, call: Callable[[], dict[str, Any]], shows: str = _DIFFERS) -> list[str]:
    """Make the same call again, with equal inputs, and compare the results bit for bit.

    Args:
        first: an earlier call.
        call: makes it again.
        shows: what a difference is called.
    """
    with surroundings.put_back():
        second = snapshots(call())
    found = [f"{c.place} {shows}: {c.detail}" for c in changes(first.values, second, "{} and {}")]
    later = changes(first.values, snapshots(first.result))
    return found + [f"{c.place} was changed by the next call: {c.detail}" for c in later]


def repeated_elsewhere(first: Call, call: Callable[[], dict[str, Any]]) -> list[str]:
    """Like :func:`repeated`, with the global random generators in another state.

    That they are the cause is said only where a call with the same ones gives the same.
    """
    with surroundings.other_generators(_OTHER_SEED):
        found = repeated(first, call, "depends on the state of a global random generator")
    return found and (repeated(first, call) or found)


def shared(
    results: Inputs,
    others: Inputs,
    allowed: Callable[[str, str], bool] = lambda one, other: False,
) -> list[str]:
    """Which results lie on the memory of others, in sentences.

    Args:
        results: by name.
        others: by name.
        allowed: whether two places may share.
    """
    pairs = overlaps(_extents(results), _extents(others))
    return [f"{one} shares memory with {other}" for one, other in pairs if not allowed(one, other)]


def refuse(subject: str, findings: list[str]) -> None:
    """Raise what was found, if anything was.

    Raises:
        ImpurityError: there are findings.
    """
    if findings:
        more = len(findings) - _MOST
        shown = findings[:_MOST] + ([f"... and {more} more"] if more > 0 else [])
        unexplained = any(f" {_DIFFERS}: " in each for each in findings)
        raise ImpurityError(subject, shown, _ADVICE if unexplained else "")


def snapshots(values: Inputs) -> Snapshot:
    """Snapshots of several values in one."""
    return {k: leaf for name, value in values.items() for k, leaf in snapshot(value, name).items()}


def _extents(values: Inputs) -> Iterable[Extent]:
    return [extent for name, value in values.items() for extent in extents(value, name)]
