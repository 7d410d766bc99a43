"""Batches that are on their way to the device while the step before them runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, Protocol

import attrs
import torch
from torch import Tensor

from functrain import tree
from functrain.data.source import Source, as_source
from functrain.data.stream import pinned
from functrain.errors.validators import at_least


class Transfer(Protocol):
    """How batches get to a device."""

    def begin(self, batch: Any) -> Any:
        """Begin to copy a batch; what comes back is given to :meth:`finish`."""
        ...

    def finish(self, begun: Any) -> Any:
        """The batch on the device, fit for use by what runs there next."""
        ...


@attrs.frozen(eq=False)
class SideStream:
    """Copies on a CUDA stream of its own, from pinned memory.

    The consumer's stream waits for the copy, not the host. Memory is marked as used by that
    stream, so that the allocator does not give it away too early
    (``torch.Tensor.record_stream``).
    """

    device: torch.device
    stream: Any = attrs.field(init=False)

    @stream.default
    def _make_stream(self) -> Any:
        return torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]

    def begin(self, batch: Any) -> Any:
        """Copy on the side stream; the pinned batch is kept until the copy is made."""
        held = pinned(batch)
        with torch.cuda.stream(self.stream):
            copy = tree.map(self._copied, held)
            event = self.stream.record_event()
        return held, copy, event

    def _copied(self, leaf: Any) -> Any:
        return leaf.to(self.device, non_blocking=True) if isinstance(leaf, Tensor) else leaf

    def finish(self, begun: Any) -> Any:
        """Have the present stream wait for the copy."""
        _, copy, event = begun
        present = torch.cuda.current_stream(self.device)
        present.wait_event(event)

        def used(leaf: Any) -> Any:
            if isinstance(leaf, Tensor):
                leaf.record_stream(present)
            return leaf

        return tree.map(used, copy)


@attrs.define(eq=False)
class Prefetched:
    """A source that reads ahead and copies ahead; it stands where its consumer does.

    Its state is what the data's was after the batch that was last handed out, not after the one
    that was last read.

    Attributes:
        data: what is read.
        transfer: how its batches get to the device.
        depth: batches on their way.
    """

    data: Source
    transfer: Transfer
    depth: int
    _ahead: deque[tuple[Any, Any]] = attrs.field(factory=deque)
    _state: Any = None

    @property
    def length(self) -> int | None:
        """Batches in an epoch."""
        return self.data.length

    @property
    def replays(self) -> bool:
        """Whether the data does."""
        return self.data.replays

    def epoch(self, seed: int, epoch: int, start: int, saved: Any) -> Iterator[Any]:
        """The batches of an epoch from ``start`` on."""
        self._ahead.clear()
        batches = self.data.epoch(seed, epoch, start, saved)
        self._state = self.data.state() if saved is None else saved
        return self._batches(batches)

    def _batches(self, batches: Iterator[Any]) -> Iterator[Any]:
        for batch in batches:
            self._ahead.append((self.transfer.begin(batch), self.data.state()))
            if len(self._ahead) > self.depth:
                yield self._handed_out()
        while self._ahead:
            yield self._handed_out()

    def _handed_out(self) -> Any:
        begun, self._state = self._ahead.popleft()
        return self.transfer.finish(begun)

    def state(self) -> Any:
        """The data's state after the batch that was last handed out."""
        return self._state

    def close(self) -> None:
        """Forget what was read ahead and end worker processes."""
        self._ahead.clear()
        self.data.close()


def prefetched(data: Any, device: torch.device | str, depth: int = 2) -> Source:
    """Data whose batches are copied to a CUDA device ahead of their use.

    Args:
        data: anything that ``fit`` takes.
        device: where the state is. On the CPU there is nothing to copy, and the data is read as
            it is.
        depth: batches that are on their way while one is used; each takes memory on the device.

    Returns:
        A source for ``fit``, ``iterate`` and ``evaluate``.

    Raises:
        ConfigurationError: ``depth`` is below 1.
        UnsupportedError: the data does not give batches.

    Example:
        >>> prefetched([torch.ones(2), torch.zeros(2)], "cpu").length
        2
    """
    if depth < 1:
        raise at_least("prefetched", "depth", 1, depth)
    source, device = as_source(data), torch.device(device)
    return Prefetched(source, SideStream(device), depth) if device.type == "cuda" else source
