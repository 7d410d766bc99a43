"""Ways to save and load a dict of tensors, each as it is and made durable.

Durable means that the files and their names are on the disk when saving ends.
"""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import torch
import torch.distributed.checkpoint
from safetensors.torch import load_file, save_file
from torch import Tensor

import functrain as ft
from functrain.checkpoint import Saver, load

dcp: Any = torch.distributed.checkpoint
FUNCTRAIN_LOAD = "functrain, verified"
Tensors = dict[str, Tensor]
Finish = Callable[[], Any]
Begin = Callable[[], Finish]
Load = Callable[[Path, Tensors], Any]
Saving = Callable[[Path, Tensors], AbstractContextManager[Begin]]


@attrs.frozen
class Contender:
    """One way to save and load.

    Attributes:
        name: for the table.
        saving: prepares, outside of what is timed, to save into an empty directory; gives what
            begins the save, which gives what ends it.
        durable: whether what is saved survives a power cut.
        loads: ways to load it from that directory, by name; they are given tensors of the same
            shapes. Where there are none, those of another contender stand for them.
        peer: whether it is a checkpoint library beside functrain.
    """

    name: str
    saving: Saving | None = None
    durable: bool = False
    loads: Mapping[str, Load] = attrs.field(factory=dict)
    peer: bool = False


def contenders() -> list[Contender]:
    """Return functrain and its installed peers."""
    found = [
        Contender("functrain", at_once(_functrain), True, _functrain_loads()),
        Contender("functrain, background", _background, True),
        Contender("functrain, background, staged", partial(_background, staged=True), True),
        *_forms("torch.save", _torch, {"torch.load": _torch_load}),
        *_forms("safetensors", _safetensors, _SAFETENSORS_LOADS),
        *_forms("torch DCP", _dcp, {"dcp.load": _dcp_load}),
        *_background_forms("torch DCP, async", _dcp_async, {}),
    ]
    if importlib.util.find_spec("orbax") is not None:
        from benchmarks.checkpoints import orbax

        found += _background_forms("Orbax", orbax.saving, {"Orbax restore": orbax.load})
    return found


def _forms(
    name: str, save: Callable[[Path, Tensors], None], loads: Mapping[str, Load]
) -> list[Contender]:
    """Return a peer as it is, and with the syncs that make it durable."""

    def save_durably(place: Path, tensors: Tensors) -> None:
        save(place, tensors)
        _sync(place)

    return [
        Contender(name, at_once(save), False, loads, peer=True),
        Contender(f"{name} + fsync", at_once(save_durably), True, peer=True),
    ]


def _background_forms(name: str, saving: Saving, loads: Mapping[str, Load]) -> list[Contender]:
    """Return the same for a peer that returns before it has saved."""
    return [
        Contender(name, saving, False, loads, peer=True),
        Contender(f"{name} + fsync", partial(_synced, saving), True, peer=True),
    ]


@contextlib.contextmanager
def _synced(saving: Saving, place: Path, tensors: Tensors) -> Iterator[Begin]:
    with saving(place, tensors) as begin:

        def begin_this() -> Finish:
            finish = begin()

            def finish_this() -> None:
                finish()
                _sync(place)

            return finish_this

        yield begin_this


def _sync(place: Path) -> None:
    """Fsync all files, their directories, and the parent directory."""
    for path in (*place.rglob("*"), place, place.parent):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def at_once(save: Callable[[Path, Tensors], None]) -> Saving:
    """Save before returning."""

    def begin(place: Path, tensors: Tensors) -> Finish:
        save(place, tensors)
        return _done

    return lambda place, tensors: nullcontext(partial(begin, place, tensors))


def _done() -> None:
    """Do nothing."""


def _functrain(place: Path, tensors: Tensors) -> None:
    ft.save(place / "state", {"params": tensors})


def _functrain_loads() -> dict[str, Load]:
    loads: dict[str, Load] = {FUNCTRAIN_LOAD: _functrain_load}
    if "verify" in inspect.signature(load).parameters:
        loads["functrain, hashes not checked"] = partial(_functrain_load, verify=False)
    return loads


def _functrain_load(place: Path, like: Tensors, **options: Any) -> Any:
    return load(place / "state", {"params": like}, **options)["params"]


@contextlib.contextmanager
def _background(place: Path, tensors: Tensors, *, staged: bool = False) -> Iterator[Begin]:
    with Saver(ft.Checkpoints(place), staged=staged) as saver:
        if staged:  # every save of a run except the first reuses the staging memory
            saver.save({"params": tensors}, step=0)
            saver.wait()
            os.sync()

        def begin() -> Finish:
            saver.save({"params": tensors}, step=1)
            return saver.wait

        yield begin


def _torch(place: Path, tensors: Tensors) -> None:
    torch.save(tensors, place / "state.pt")


def _torch_load(place: Path, like: Tensors) -> Any:
    return torch.load(place / "state.pt", weights_only=True)


def _safetensors(place: Path, tensors: Tensors) -> None:
    save_file(tensors, place / "state.safetensors")


def _safetensors_map(place: Path, like: Tensors) -> Any:
    return load_file(place / "state.safetensors")


def _safetensors_load(place: Path, like: Tensors) -> Any:
    """Copy into fresh memory, as the others do; ``load_file`` only maps the file."""
    return {name: tensor.clone() for name, tensor in _safetensors_map(place, like).items()}


_SAFETENSORS_LOADS: dict[str, Load] = {
    "safetensors, cloned": _safetensors_load,
    "safetensors, mapped only": _safetensors_map,
}


def _dcp(place: Path, tensors: Tensors) -> None:
    writer = dcp.FileSystemWriter(place, sync_files=True)
    dcp.save(dict(tensors), storage_writer=writer, no_dist=True)


@contextlib.contextmanager
def _dcp_async(place: Path, tensors: Tensors) -> Iterator[Begin]:
    def begin() -> Finish:
        writer = dcp.FileSystemWriter(place, sync_files=True)
        future = dcp.async_save(dict(tensors), storage_writer=writer, no_dist=True)
        finish: Finish = future.result
        return finish

    yield begin


def _dcp_load(place: Path, like: Tensors) -> Any:
    found = {name: torch.empty_like(tensor) for name, tensor in like.items()}
    dcp.load(found, storage_reader=dcp.FileSystemReader(place), no_dist=True)
    return found
