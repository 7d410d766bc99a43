"""Copy batches to the device while the previous step runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, Protocol

import attrs
import torch
from torch import Tensor

from functrain import tree
from functrain.data.source import Source, Wrapper, as_source
from functrain.data.stream import pinned
from functrain.errors.calls import explained
from functrain.errors.validators import integer


class Transfer(Protocol):
    """Copies batches to a device."""

    def begin(self, batch: Any) -> Any:
        """Start copying a batch; return the argument for :meth:`finish`."""
        ...

    def finish(self, begun: Any) -> Any:
        """Return the batch on the device, ready for the kernels launched next."""
        ...


@attrs.frozen(eq=False)
class SideStream:
    """Copies on a separate CUDA stream, from pinned memory.

    The consumer's stream waits for the copy; the host does not. ``torch.Tensor.record_stream``
    marks the memory as used by that stream, so that the allocator does not reuse it too early.
    """

    device: torch.device
    stream: Any = attrs.field(init=False)

    @stream.default
    def _make_stream(self) -> Any:
        return torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]

    def begin(self, batch: Any) -> Any:
        """Copy on the side stream, keeping the pinned batch alive until the copy is complete."""
        held = pinned(batch)
        with torch.cuda.stream(self.stream):
            copy = tree.map(self._copied, held)
            event = self.stream.record_event()
        return held, copy, event

    def _copied(self, leaf: Any) -> Any:
        return leaf.to(self.device, non_blocking=True) if isinstance(leaf, Tensor) else leaf

    def finish(self, begun: Any) -> Any:
        """Make the current stream wait for the copy."""
        _, copy, event = begun
        present = torch.cuda.current_stream(self.device)
        present.wait_event(event)

        def used(leaf: Any) -> Any:
            if isinstance(leaf, Tensor):
                leaf.record_stream(present)
            return leaf

        return tree.map(used, copy)


@attrs.define(eq=False)
class Prefetched(Wrapper):
    """A source that reads and copies batches ahead of its consumer.

    Its state is that of the data after the last batch yielded, not after the last batch read.

    Attributes:
        depth: number of batches being copied at a time.
    """

    data: Source
    transfer: Transfer
    depth: int
    _ahead: deque[tuple[Any, Any]] = attrs.field(factory=deque)
    _state: Any = None

    def epoch(self, seed: int, epoch: int, start: int, saved: Any) -> Iterator[Any]:
        """Yield the batches of an epoch from ``start`` on."""
        self._ahead.clear()
        batches = self.data.epoch(seed, epoch, start, saved)
        self._state = self.data.state() if saved is None else saved
        return self._batches(batches)

    def _batches(self, batches: Iterator[Any]) -> Iterator[Any]:
        for batch in batches:
            self._ahead.append((self.transfer.begin(batch), self.data.state()))
            if len(self._ahead) > self.depth:
                yield self._finished()
        while self._ahead:
            yield self._finished()

    def _finished(self) -> Any:
        begun, self._state = self._ahead.popleft()
        return self.transfer.finish(begun)

    def state(self) -> Any:
        """Return the state of the data after the last batch yielded."""
        return self._state

    def close(self) -> None:
        """Discard the batches read ahead and end worker processes."""
        self._ahead.clear()
        self.data.close()


@explained
def prefetched(data: Any, device: torch.device | str, depth: int = 2) -> Source:
    """Copy the batches of some data to a CUDA device ahead of their use.

    Args:
        data: any kind of data that ``fit`` accepts.
        device: the device of the state. For the CPU, the data is read without copying.
        depth: number of batches being copied while one is used; each needs memory on the device.

    Returns:
        A source for ``fit``, ``iterate`` and ``evaluate``.

    Raises:
        ConfigurationError: ``depth`` is below 1.
        UnsupportedError: the data does not yield batches.

    Example:
        >>> prefetched([torch.ones(2), torch.zeros(2)], "cpu").length
        2
    """
    integer(minimum=1).check("prefetched: depth", depth)
    source, device = as_source(data), torch.device(device)
    return Prefetched(source, SideStream(device), depth) if device.type == "cuda" else source
