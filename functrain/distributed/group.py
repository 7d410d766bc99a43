"""The process group of this process, and messages between the hosts.

One of torch's own is taken as it is. Otherwise :func:`current` starts one if a launcher says that
there are several processes. Messages between hosts never wait for an accelerator: a group that is
started here has gloo for the CPU beside the backend of the device. (NCCL was not tested.)
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import torch
import torch.distributed as dist

from functrain.distributed import failure
from functrain.distributed.joining import device_of, join
from functrain.distributed.launch import from_environment
from functrain.distributed.reports import listed
from functrain.errors import ProcessGroupError, RankMismatchError
from functrain.tree.placed import require_all_ranks

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

T = TypeVar("T")


def _weak(group: Any) -> weakref.ref[ProcessGroup] | None:
    return group if group is None or isinstance(group, weakref.ref) else weakref.ref(group)


@attrs.frozen
class World:
    """All processes that train together, seen from one of them.

    Attributes:
        rank: of this process, from 0.
        size: the number of processes.
        group: their process group of torch; ``None`` in a single process without one.

    Example:
        >>> world = World(rank=0, size=1, group=None)
        >>> world.gathered("a"), world.broadcast("b")
        (['a'], 'b')
    """

    rank: int
    size: int
    # The threads of gloo end with the last reference to their group, and one that releases a tensor
    # while the interpreter ends aborts the process. So nothing that outlives a step holds a group.
    _held: weakref.ref[ProcessGroup] | None = attrs.field(
        default=None, alias="group", converter=_weak, repr=False
    )

    @property
    def group(self) -> ProcessGroup | None:
        """The process group of torch.

        Raises:
            ProcessGroupError: this process has left it.
        """
        group = None if self._held is None else self._held()
        if group is None and self._held is not None:
            raise ProcessGroupError(
                f"rank {self.rank} of {self.size} has left its process group, in which it was to "
                "exchange something. Join again: functrain.distributed.current()"
            )
        return group

    @property
    def is_broken(self) -> bool:
        """Whether a rank has failed: nothing collective may run in this group again."""
        group = self._with_peers
        return group is not None and failure.of(group) is not None

    def broadcast(self, value: T, source: int = 0) -> T:
        """Return the value of one rank on every rank.

        Args:
            value: anything that pickles; ignored on other ranks.
            source: the rank.

        Raises:
            RankFailedError: a rank has failed, or fails now.
        """
        if self.size == 1:
            return value
        box = [value]
        with self._collective():
            dist.broadcast_object_list(box, source, self.group)
        return box[0]

    def gathered(self, value: T) -> list[T]:
        """Return the values of all ranks, in the order of ranks, on every rank.

        Args:
            value: anything that pickles.

        Raises:
            RankFailedError: a rank has failed, or fails now.
        """
        found = [value] * self.size
        if self.size > 1:
            with self._collective():
                dist.all_gather_object(found, value, self.group)
        return found

    def barrier(self) -> None:
        """Wait until every rank is here.

        Raises:
            RankFailedError: a rank has failed, or fails now.
        """
        self.gathered(None)

    def require_equal(self, what: dict[str, str | int]) -> None:
        """Compare named values of all ranks.

        Args:
            what: for example digests of the recipe, the data, the code, the batch.

        Raises:
            RankMismatchError: on every rank, if values differ; it names the ranks and the values.
            RankFailedError: a rank has failed, or fails now.
        """
        found = self.gathered(what)
        names = dict.fromkeys(name for values in found for name in values)
        problems = [line for name in names for line in _mismatches(name, found)]
        if problems:
            raise RankMismatchError(
                "expected the same on every rank, got\n"
                + "\n".join(f"  {problem}" for problem in problems)
                + "\nStart every rank with the same code, files, settings and data"
            )

    @contextmanager
    def failing_together(self) -> Iterator[None]:
        """End all ranks if this one raises an exception, or if another rank has.

        An exception in the block is published to the other ranks, whose collectives then fail at
        once, and raised here as it is. A collective in the block that fails because of another
        rank raises an error that names the rank and its exception. Blocks may be nested.

        Raises:
            RankFailedError: another rank failed, ended or gave no answer within the timeout.
        """
        try:
            yield
        except GeneratorExit:
            raise
        except BaseException as error:
            has_left = self._held is not None and self._held() is None
            if not has_left and self._with_peers is not None:
                failure.end_together(self._with_peers, error)
            raise

    @contextmanager
    def _collective(self) -> Iterator[None]:
        require_all_ranks("a message between ranks")
        if self._with_peers is not None:
            failure.refuse(self._with_peers)
        with self.failing_together():
            yield

    @property
    def _with_peers(self) -> ProcessGroup | None:
        """The default group if it has processes that could wait; one that torch fakes has none.

        All groups of these ranks end together, so a failure is that of the default group.
        """
        if self.size == 1 or "fake" in dist.get_backend_config(self.group):
            return None
        return dist.group.WORLD


def _mismatches(name: str, found: list[dict[str, str | int]]) -> Iterator[str]:
    """Give a line for each value that is not that of most ranks, or of rank 0 in a draw."""
    ranks: dict[str | int | None, list[int]] = {}
    for rank, values in enumerate(found):
        ranks.setdefault(values.get(name), []).append(rank)
    expected = max(ranks, key=lambda value: len(ranks[value]))
    for value, several in ranks.items():
        if value != expected:
            verb, others = "has" if len(several) == 1 else "have", listed(ranks[expected])
            yield f"{name}: {listed(several)} {verb} {value!r}, {others} {expected!r}"


def current(
    timeout: float | timedelta | None = None, device: str | torch.device | None = None
) -> World:
    """Return the world of this process; join the others if that has not happened yet.

    The default process group of ``torch.distributed`` is used if there is one. Otherwise one is
    started if torchrun or SLURM started this process as one of several, and left at exit.

    Args:
        timeout: seconds after which a collective fails; by default 60 on the CPU, and torch's own
            for other devices. Unused if there is a process group already.
        device: the device that this rank trains on; by default the accelerator with the number of
            the local rank, or the CPU.

    Returns:
        The world; ``World(0, 1)`` for a process on its own.

    Raises:
        ConfigurationError: the variables of the launcher are incomplete or contradict each other.
        ProcessGroupError: the other processes cannot be reached.

    Example:
        >>> current()
        World(rank=0, size=1)
    """
    if not dist.is_available():
        return World(0, 1)
    if not dist.is_initialized():
        launch = from_environment(os.environ)
        if launch is None or not launch.address:
            return World(0, 1)
        join(launch, timeout, device_of(launch, device))
    group = dist.group.WORLD
    assert group is not None, "it is initialized"
    return World(group.rank(), group.size(), group)
