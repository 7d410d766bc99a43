"""Agree among ranks on the outcome of a save or load: all raise what one of them raises."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import timedelta
from typing import Any, Protocol, TypeVar

import attrs
import torch.distributed as dist

from functrain.errors import (
    CheckpointWriteError,
    FunctrainError,
    ProcessGroupError,
    RankFailedError,
)
from functrain.tree import Tree, items
from functrain.tree.placed import is_placed, require_all_ranks

T = TypeVar("T")
# A rank may wait this long for another one that writes to a slow disk.
_LONGEST = timedelta(minutes=30)
# How long ranks wait for each other to make a group; all of them are about to do it.
_MEETING = timedelta(seconds=15)


class World(Protocol):
    """The ranks that save or load together, as ``functrain.distributed.World`` has them."""

    @property
    def rank(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def group(self) -> Any: ...
    def broadcast(self, value: T, source: int = 0) -> T: ...
    def gathered(self, value: T) -> list[T]: ...
    def barrier(self) -> None: ...
    def failing_together(self) -> AbstractContextManager[None]: ...


@attrs.frozen
class Trouble:
    """An exception of one rank, as other ranks hear of it."""

    rank: int
    kind: type[FunctrainError]
    code: int | None
    text: str

    @classmethod
    def of(cls, rank: int, error: Exception) -> Trouble:
        if isinstance(error, OSError):
            kind = type(error) if isinstance(error, FunctrainError) else CheckpointWriteError
            return cls(rank, kind, error.errno or errno.EIO, error.strerror or str(error))
        if isinstance(error, FunctrainError):
            return cls(rank, type(error), None, str(error))
        return cls(rank, RankFailedError, None, f"{type(error).__name__}: {error}")

    def error(self) -> FunctrainError:
        """Return the exception for another rank; of the same class, if functrain declares it."""
        if self.kind is RankFailedError:
            return RankFailedError(f"rank {self.rank} raised {self.text}", self.rank)
        text = f"rank {self.rank}: {self.text}"
        # Not by calling the class: those of functrain format messages from other arguments.
        if not issubclass(self.kind, OSError):
            return self.kind.__new__(self.kind, text)
        made = self.kind.__new__(self.kind, self.code, text)
        OSError.__init__(made, self.code, text)
        return made


def agree(world: World | None, ask: Callable[[], T]) -> T:
    """Call a function on every rank; if it fails on one, raise on all and name the rank.

    Each returns its own value. Without a world, just call the function.
    """
    if world is None:
        return ask()
    found: list[T] = []
    error = None
    try:
        found.append(ask())
    except Exception as failure:  # not hidden: all ranks hear of it
        error = failure
    troubles = world.gathered(None if error is None else Trouble.of(world.rank, error))
    if error is not None:
        raise error
    first = next((trouble for trouble in troubles if trouble is not None), None)
    if first is not None:
        raise first.error()
    return found[0]


def from_first(world: World | None, ask: Callable[[], T]) -> T:
    """Return the value of rank 0 on every rank, or raise its error; without a world, ask here."""
    if world is None:
        return ask()
    found = agree(world, lambda: [ask()] if world.rank == 0 else [])
    return world.broadcast(found)[0]


def world_of(tree: Tree) -> World | None:
    """Return the world of a tree of which ranks hold parts; ``None`` for any other tree."""
    if not (dist.is_available() and dist.is_initialized()):
        return None
    if not any(is_placed(leaf) for _, leaf in items(tree)):
        return None
    from functrain.distributed.group import current  # only where there are ranks

    return current()


@contextmanager
def own_group(world: World | None) -> Iterator[World | None]:
    """Give the ranks, if there are any, a process group of their own inside a ``with`` block."""
    if world is None:
        yield None
        return
    own = connect(world)
    try:
        yield own
        own.barrier()  # the others have heard everything
    finally:
        disconnect(own)


def connect(world: World) -> World:
    """Return the world with a new process group; all ranks call this at the same time.

    Messages of a save cannot mix with those of a step that runs meanwhile, and the group waits for
    slow disks longer than a step waits for a hanging rank.
    """
    if world.size == 1:
        return world
    from functrain.distributed.connections import set_timeout

    require_all_ranks("a save of a placed state")
    with world.failing_together():
        world.barrier()  # making a group with a rank that is gone only ends with the timeout
        # torch's default is half an hour, in which a rank that dies just now would be waited for.
        group = dist.new_group(backend="gloo", timeout=_MEETING)
        set_timeout(group, _LONGEST)
    return attrs.evolve(world, group=group)  # type: ignore[misc]


def disconnect(world: World) -> None:
    """Destroy the group of :func:`connect`, unless all groups were destroyed meanwhile."""
    if world.size > 1 and dist.is_initialized():
        with suppress(ProcessGroupError):
            dist.destroy_process_group(world.group)
