"""Check that a listener does not change training."""

from __future__ import annotations

from typing import Any

from functrain import tree
from functrain.core.program import Program
from functrain.errors import ImpurityError, ListenerError
from functrain.testing.observed_calls import refuse, snapshots, watch_call
from functrain.testing.snapshots import changes
from functrain.training.durations import Steps
from functrain.training.events import Listener


def check_listener(
    listener: Listener, program: Program, data: Any, *, steps: int = 8, **options: Any
) -> None:
    """Check that a run has the same bytes with a listener and without it.

    The listener must not change the state, batch or metrics of an event, nor global state. Then
    state and history of the two runs are compared. A listener may add metrics and may end the run.

    Args:
        listener: a new listener; what it stores and writes itself is not checked.
        program: the program to train.
        data: data for ``fit`` that can be iterated repeatedly.
        steps: updates in the run.
        **options: options of ``functrain.fit``, such as ``eval_data``.

    Raises:
        ImpurityError: names the method and what it changed.

    Example:
        >>> import functrain as ft, torch
        >>> class Rounding:
        ...     def on_batch_end(self, event):
        ...         event.state.params["weight"].round_()
        >>> loss = lambda model, batch: model(batch).square().mean()
        >>> program = ft.program(torch.nn.Linear(2, 1, bias=False), loss, ft.optim.SGD(lr=0.1))
        >>> check_listener(Rounding(), program, [torch.ones(4, 2)])
        Traceback (most recent call last):
        functrain.errors.ImpurityError: Rounding.on_batch_end is not pure:
          event.state.params['weight'] was changed: 2 of 2 elements, first at [0, 0]: ...
    """
    from functrain.training.fitting import fit

    try:
        heard = fit(
            program,
            data,
            until=Steps(steps),
            listeners=[Watching(listener)],
            progress=False,
            **options,
        )
    except ListenerError as error:
        if isinstance(error.__cause__, ImpurityError):
            raise error.__cause__ from None
        raise
    made = heard.state.counters.step
    if not made:
        return
    alone = fit(program, data, until=Steps(made), progress=False, **options)
    expected = snapshots({"state": alone.state, "history": _rows(alone.history, None)})
    names = [set(row) for row in alone.history.rows]
    found = snapshots({"state": heard.state, "history": _rows(heard.history, names)})
    refuse(
        f"{type(listener).__name__}",
        [
            f"{change.place} differs between a run without and with it: {change.detail}"
            for change in changes(expected, found, "{} and {}")
        ],
    )


class Watching:
    """A listener that forwards events to another one and checks that they are unchanged."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._listener, name)
        if not name.startswith("on_") or not callable(method):
            return method

        def watched(event: Any) -> Any:
            call = watch_call(lambda: {"answer": method(event)}, {"event": event})
            refuse(f"{type(self._listener).__name__}.{name}", call.findings)
            return call.result["answer"]

        return watched


def _rows(history: Any, names: list[set[str]] | None) -> list[dict[str, Any]]:
    """Return the rows of a history, restricted to some names."""
    rows: list[dict[str, Any]] = tree.map(lambda leaf: leaf, history.rows)
    if names is None:
        return rows
    kept = [*names, *[set[str]()] * max(0, len(rows) - len(names))]
    return [{k: v for k, v in row.items() if k in own} for row, own in zip(rows, kept, strict=True)]
