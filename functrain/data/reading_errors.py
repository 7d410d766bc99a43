"""Errors in which torch's loaders hide what happened to the data: name the data instead."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator
from types import CodeType
from typing import Any

from functrain.errors import DataChangedError, WorkerError

_DEAD = "DataLoader worker (pid"


def worker_died(error: BaseException) -> WorkerError:
    """Return the error of a process that reads data and has ended."""
    return WorkerError(
        f"a process that reads data ended unexpectedly ({error}). Often it ran out of memory or "
        "crashed in native code: try workers=0 (num_workers=0 of a DataLoader) to see the error "
        "itself, fewer workers, or a smaller prefetch."
    )


@contextlib.contextmanager
def naming_dead_workers() -> Iterator[None]:
    """Name a worker's death in a block that reads data.

    torch reports it by a signal handler, which interrupts any line of this process: of the model,
    of a listener. The error would blame that line.
    """
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, WorkerError):
            if isinstance(cause, RuntimeError) and str(cause).startswith(_DEAD):
                raise worker_died(cause) from error
            cause = cause.__cause__
        raise


def is_of_dead_worker(error: Exception) -> bool:
    """Return whether an error of drawing from a torch loader is that of a dead worker."""
    if isinstance(error, ConnectionError | EOFError):
        # A worker that dies while it sends a tensor breaks the connection. An error of a connection
        # inside the dataset arrives as an error caught in a worker instead.
        return "in DataLoader worker process" not in str(error)
    return isinstance(error, RuntimeError) and str(error).startswith(_DEAD)


def refuse_stop(stop: StopIteration, loader: Any, place: str) -> None:
    """Refuse a ``StopIteration`` that a loader's dataset raised, which would end the epoch.

    A loader passes it on as if it had no more batches.
    """
    dataset = getattr(loader, "dataset", None)
    if dataset is None:
        return
    codes = {*_codes(dataset, "__getitem__", "__getitems__")}
    codes |= _codes(getattr(loader, "collate_fn", None), "__call__")
    where = ""
    for frame, _ in traceback.walk_tb(stop.__traceback__):
        code = frame.f_code
        if code in codes or (where and code.co_name == "__getitem__"):
            index = frame.f_locals.get(code.co_varnames[min(1, len(code.co_varnames) - 1)])
            where = f"{code.co_qualname}({index if isinstance(index, int) else '...'})"
    if where or str(stop).startswith("Caught StopIteration"):
        raise stopped(type(dataset).__name__, f"in {where or 'a worker'}, {place}") from stop


def stopped(dataset: str, place: str) -> DataChangedError:
    """Return the error of a ``StopIteration`` of the user's code."""
    return DataChangedError(
        f"the dataset {dataset}, its transform or its collate function raised StopIteration "
        f"{place}. Python takes that for the end of the data, which would end the epoch early: "
        "raise another error there, such as IndexError; next(iterator, None) raises none"
    )


def _codes(value: Any, *names: str) -> set[CodeType]:
    """Return the code of a function, or of methods of an object."""
    found = [value, *(getattr(type(value), name, None) for name in names)]
    return {one.__code__ for one in found if isinstance(getattr(one, "__code__", None), CodeType)}
