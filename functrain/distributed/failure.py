"""How the failure of one rank ends all ranks, through the store of their process group.

A rank whose work raises publishes its exception in the store, then closes its connections, so that
collectives of other ranks fail at once. A rank whose collective fails reports where it waited, and
reads in the store why. If nothing is published, then a rank ended silently (its connection is
closed and it does not report), hangs (the collective timed out and it does not report), or waits
elsewhere: in another collective.
"""

from __future__ import annotations

import itertools
import json
import linecache
import re
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path

import attrs
import torch
import torch.distributed as dist
from torch.distributed import ProcessGroup

from functrain.distributed import connections
from functrain.distributed.reports import (
    listed,
    missing,
    places,
    poll,
    report,
    wait_for_others,
    waiting,
)
from functrain.errors import RankFailedError

_FIRST = "functrain/failed"
# Bounds of waiting: until a closed connection shows, until other ranks report, until they read.
# A rank that is making a group (checkpoint/rank_errors.py) reads last.
_PROBE, _REPORT, _READ = 1.0, 3.0, 20.0
_LONGEST = 2000
_COLLECTIVE = re.compile(r"/gloo/|NCCL|Connection closed by peer|caused pair closure")
_TIMED_OUT = re.compile(r"Timed out|timeout", re.IGNORECASE)


@attrs.frozen
class Failure:
    """The first failure of a group; silent ranks ended or hang, and so do not read the store."""

    ranks: list[int]
    text: str
    silent: bool = False

    def error(self) -> RankFailedError:
        """Return the exception that other ranks raise."""
        who = f"{listed(self.ranks)} " if self.ranks else ""
        return RankFailedError(who + self.text, self.ranks[0] if self.ranks else None)


_HOST_ENDED = Failure([0], "ended, and with it the store of all ranks. Look at its output", True)
_KILLED = (
    "ended without an exception: killed (the system does that if memory runs out) or crashed. "
    "Look at its output and the system's log"
)
_SAME = "Call the same operations on every rank, in the same order"
_HANGS = (
    "It hangs, was stopped, or does work that the others do not wait for long enough. Look at its "
    "stack (py-spy dump), or join with a longer timeout: functrain.distributed.current(timeout=600)"
)


def of(group: ProcessGroup) -> Failure | None:
    """Return the first failure in a group, or ``None``."""
    store = group.get_group_store()
    try:
        return Failure(**json.loads(store.get(_FIRST))) if store.check([_FIRST]) else None
    except dist.DistError:
        return _HOST_ENDED


def refuse(group: ProcessGroup) -> None:
    """Raise the first failure in a group, if there is one."""
    found = of(group)
    if found is not None:
        _end(group, found)
        raise found.error()


def end_together(group: ProcessGroup, error: BaseException) -> None:
    """End the part of this rank in a group after an exception, its own or another rank's.

    Nothing collective works in the group afterwards. Raises ``RankFailedError`` if the exception is
    only the consequence of another rank's failure.
    """
    if any(isinstance(each, RankFailedError) for each in _chain(error)):
        return
    consequence = next(filter(_is_of_collective, _chain(error)), None)
    if consequence is None:
        found = _publish(group, Failure([group.rank()], f"raised {_described(error)}"))
    else:
        found = _explained(group, consequence)
    _end(group, found)
    if consequence is not None:
        raise found.error() from error


def _end(group: ProcessGroup, found: Failure) -> None:
    """Close the connections, so that other ranks stop waiting, and let them read the failure."""
    connections.close_all()
    if found == _HOST_ENDED:
        return
    wait_for_others(group, "read", _READ, found.ranks if found.silent else [])


def _explained(group: ProcessGroup, error: BaseException) -> Failure:
    """Close the connections, and return why a collective failed."""
    try:
        report(group, "failed", place_of(error))
        found = of(group)
        if found is None and not _TIMED_OUT.search(str(error)):
            # A rank whose collective timed out has closed its connections, and reports very soon.
            found = poll(_PROBE, lambda: of(group)) or _ended(group)
        connections.close_all()
        found = found or poll(_REPORT, lambda: of(group) or _disconnected(group, error))
        return found or _publish(group, _silent(group, error))
    except dist.DistError:
        connections.close_all()
        return _HOST_ENDED


def _ended(group: ProcessGroup) -> Failure | None:
    """Return the ranks whose process ended without a message."""
    # In this order: a rank whose collective fails reports before it closes its connections.
    closed = connections.closed_peers(group)
    ranks = [rank for rank in missing(group, "failed") if rank in closed]
    if not ranks:
        return None
    left = set(ranks).isdisjoint(missing(group, "left"))
    text = f"left the group while {waiting(group)}. {_SAME}" if left else _KILLED
    return _publish(group, Failure(ranks, text, silent=True))


def _disconnected(group: ProcessGroup, error: BaseException) -> Failure | None:
    """Return a failure of no rank if every rank reports one of its connections."""
    if missing(group, "failed"):
        return None
    text = f"a connection between ranks failed: {_described(error)}"
    if len(places(group)) > 1:
        text = f"ranks wait for different operations: {waiting(group)}. {_SAME}"
    return _publish(group, Failure([], text))


def _silent(group: ProcessGroup, error: BaseException) -> Failure:
    waited = re.search(r"(\d+) ?ms", str(error))
    time = f" within {int(waited[1]) / 1000:g} s" if waited else ""
    ranks = missing(group, "failed")
    return Failure(ranks, f"gave no answer{time}, while {waiting(group)}. {_HANGS}", silent=True)


def _publish(group: ProcessGroup, failure: Failure) -> Failure:
    """Publish a failure unless another one is; return the one that is published."""
    text = json.dumps(attrs.asdict(failure))
    try:
        first = group.get_group_store().compare_set(_FIRST, "", text)
    except dist.DistError:
        return _HOST_ENDED
    return Failure(**json.loads(first))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception and those that it was raised from or while handling."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_of_collective(error: BaseException) -> bool:
    if isinstance(error, dist.DistError):
        return True
    return isinstance(error, RuntimeError) and _COLLECTIVE.search(str(error)) is not None


def _described(error: BaseException) -> str:
    kind = type(error)
    name = (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )
    text = str(error)
    return name + (f": {text[:_LONGEST]}" if text else "")


_OWN = str(Path(__file__).parents[1])
# The line of the user is the innermost one that is in none of these.
_LIBRARIES = (
    str(Path(torch.__file__).parent),
    *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")),
    "<",
)


def place_of(error: BaseException) -> str:
    """Return the user's line and the function of functrain in which a collective failed.

    Example:
        >>> try:
        ...     raise RuntimeError
        ... except RuntimeError as error:
        ...     place_of(error)
        'the program'
    """
    handled = [(frame.f_code, line) for frame, line in traceback.walk_stack(None)]
    raised = [(frame.f_code, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    user, own = "", ""
    for code, line in itertools.chain(reversed(handled[1:]), raised):
        file = code.co_filename
        if file.startswith(_OWN):
            own = f"functrain's {code.co_qualname}"
        elif not file.startswith(_LIBRARIES):
            text = linecache.getline(file, line).strip()
            user = f"{Path(file).name}:{line}" + (f" `{text}`" if text else "")
    return " in ".join(filter(None, (own, user))) or "the program"
