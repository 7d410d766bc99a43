"""Hold the tensors of a snapshot until they are written: by reference, or as copies."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import attrs
import torch
from torch import Tensor

from functrain.checkpoint.snapshot import Snapshot, versions
from functrain.tree.elements import as_integers


class ByReference:
    """Hold tensors by reference, which suffices for states that are never changed in place.

    Memory that torch does not own, such as that of a NumPy array, is copied unless it is written
    ``at_once``: torch cannot count changes to it.

    Tensors on a GPU are read on a separate stream of the writing thread, after the kernels that
    compute them and concurrently with those of later steps.
    """

    def __init__(self, at_once: bool = False) -> None:
        self._at_once = at_once
        self._made: dict[torch.device, torch.cuda.Event] = {}

    def hold(self, snap: Snapshot) -> Snapshot:
        """Return the snapshot, with copies of memory that torch does not own."""
        devices = {tensor.device for _, tensor in snap.tensors if tensor.is_cuda}
        self._made = {
            device: torch.cuda.current_stream(device).record_event() for device in devices
        }
        foreign = [] if self._at_once else list(filter(_is_foreign, (t for _, t in snap.tensors)))
        if not foreign:
            return snap
        copies = {id(tensor): tensor.clone() for tensor in foreign}
        tensors = [(path, copies.get(id(tensor), tensor)) for path, tensor in snap.tensors]
        return attrs.evolve(snap, tensors=tensors, versions=versions([t for _, t in tensors]))

    @contextlib.contextmanager
    def ready(self) -> Iterator[None]:
        """Make the tensors readable in the writing thread inside a ``with`` block."""
        with contextlib.ExitStack() as stack:
            for device, made in self._made.items():
                stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
                stream.wait_event(made)
                stack.enter_context(torch.cuda.stream(stream))
            yield


class StagedCopies:
    """Hold copies, in memory that the next snapshot reuses.

    Tensors on a GPU are copied to pinned memory on a separate stream. Later kernels on the GPU
    wait for these copies; the host does not.
    """

    def __init__(self) -> None:
        self._copies: dict[int, Tensor] = {}
        self._streams: dict[torch.device, torch.cuda.Stream] = {}

    def hold(self, snap: Snapshot) -> Snapshot:
        """Return the snapshot with copied tensors, overwriting the copies of the previous one."""
        copies: list[Tensor] = []
        for index, ((_, tensor), first) in enumerate(zip(snap.tensors, snap.same, strict=True)):
            copies.append(self._copy(index, tensor) if first is None else copies[first])
        for device, stream in self._streams.items():
            # The next step may overwrite the originals (a donated program).
            torch.cuda.current_stream(device).wait_stream(stream)
        paths = [path for path, _ in snap.tensors]
        pairs = list(zip(paths, copies, strict=True))
        return attrs.evolve(snap, tensors=pairs, versions=versions(copies))

    @contextlib.contextmanager
    def ready(self) -> Iterator[None]:
        """Wait for the copies, then make them readable inside a ``with`` block."""
        for stream in self._streams.values():
            stream.synchronize()
        yield

    def _copy(self, index: int, tensor: Tensor) -> Tensor:
        source = as_integers(tensor.detach().resolve_conj().resolve_neg())
        copy = self._copies.get(index)
        if copy is None or not _fits(copy, tensor):
            copy = torch.empty_like(tensor.detach(), device="cpu", pin_memory=tensor.is_cuda)
            self._copies[index] = copy
        if not tensor.is_cuda:
            as_integers(copy).copy_(source)
            return copy
        if tensor.device not in self._streams:
            own = torch.cuda.Stream(tensor.device)  # type: ignore[no-untyped-call]
            self._streams[tensor.device] = own
        stream = self._streams[tensor.device]
        stream.wait_stream(torch.cuda.current_stream(tensor.device))
        with torch.cuda.stream(stream):
            as_integers(copy).copy_(source, non_blocking=True)
        return copy


def _is_foreign(tensor: Tensor) -> bool:
    return tensor.is_cpu and not tensor.untyped_storage().resizable()


def _fits(copy: Tensor, tensor: Tensor) -> bool:
    if copy.shape != tensor.shape or copy.dtype != tensor.dtype:
        return False
    return copy.stride() == torch.empty_like(tensor, device="meta").stride()
