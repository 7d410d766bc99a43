"""Dispatch of events to listeners, and the states of listeners."""

from __future__ import annotations

import operator
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, get_args

import attrs
import torch
from torch import Tensor

from functrain.core.state import TrainState, params_of
from functrain.errors import ListenerError
from functrain.training.events import BatchEnd, Event, Listener, Stop
from functrain.transforms.graph.inputs import flatten
from functrain.tree.placed import alone

_VERSION = operator.attrgetter("_version")
# By event: the listeners that have a method for it, and that method.
Methods = dict[type, list[tuple[Listener, Callable[[Any], object]]]]


def method_name(event: type) -> str:
    """Return the name of the listener method that receives an event."""
    return "on" + re.sub("([A-Z])", lambda match: "_" + match[1].lower(), event.__name__)


@attrs.frozen
class Listeners:
    """The listeners of a run, in the order in which they receive events.

    A listener has any subset of the methods. They are looked up once, so that an event without a
    listener costs a dictionary look-up.
    """

    listeners: Mapping[str, Listener]
    methods: Methods

    @classmethod
    def of(
        cls,
        listeners: Iterable[Listener] | None,
        rank: int = 0,
        ranks: int = 1,
        last: Sequence[Listener] = (),
    ) -> Listeners:
        """Look up the methods of listeners; ``None`` stands for no listeners.

        Other ranks than 0 keep only listeners with ``every_rank``; ``last`` are those of ``fit``
        itself.
        """
        if not isinstance(listeners, Iterable | None):
            raise ListenerError(
                f"listeners: expected a list, got a {type(listeners).__name__}: write "
                "listeners=[...]"
            )
        by_name = named([*(listeners or ()), *last])
        events = get_args(Event)
        methods: Methods = {event: [] for event in events}
        for name, listener in list(by_name.items()):
            if isinstance(listener, type):
                kind = listener.__name__
                raise ListenerError(f"{kind} is a class; a listener is an object: {kind}(...)")
            found = [e for e in events if callable(getattr(listener, method_name(e), None))]
            if not found:
                names = ", ".join(method_name(event) for event in events)
                hint = (
                    '. To call a function of the state: functrain.listeners.Every("100 steps", f)'
                    if callable(listener)
                    else ""
                )
                raise ListenerError(
                    f"{listener!r} has none of the methods of a listener: {names}{hint}"
                )
            everywhere = ranks == 1 or getattr(listener, "every_rank", False)
            if rank and not everywhere:
                del by_name[name]
                continue
            for event in found:
                method = getattr(listener, method_name(event))
                methods[event].append((listener, method if everywhere else _on_rank_0(method)))
        return cls(by_name, methods)

    def emit(self, event: Event, row: dict[str, Any] | None = None) -> Stop | None:
        """Send an event to the listeners that have a method for it.

        Returns the first request to stop; metrics that listeners return are added to ``row``.
        """
        methods, stop = self.methods[type(event)], None
        if not methods:
            return None
        tensors, before = _writes_to(event.state)
        for listener, method in methods:
            try:
                answer = method(event)
            except Exception as error:  # not hidden: raised again with its place named
                failure = _failure(listener, event, error)
                failure.wrote_state = sum(map(_VERSION, tensors)) != before
                raise failure from error
            if answer is None:
                continue
            stop = stop or (answer if isinstance(answer, Stop) else None)
            if isinstance(event, BatchEnd) and isinstance(answer, Mapping):
                event = _with_more(event, answer, listener)
                if row is not None:
                    row.update(event.metrics)
        if sum(map(_VERSION, tensors)) != before:
            raise _written([listener for listener, _ in methods], event)
        return stop

    def wants(self, event: type) -> bool:
        """Return whether any listener has a method for this kind of event."""
        return bool(self.methods[event])

    def states(self) -> dict[str, Any]:
        """Return the states of the listeners that have ``state_dict``, by name."""
        return {
            name: listener.state_dict()
            for name, listener in self.listeners.items()
            if callable(getattr(listener, "state_dict", None))
        }

    def load_states(self, states: Mapping[str, Any]) -> None:
        """Give the listeners their saved states."""
        for name, listener in self.listeners.items():
            if name in states and hasattr(listener, "load_state_dict"):
                listener.load_state_dict(states[name])

    def close(self, error: BaseException) -> None:
        """Call ``close`` of the listeners that have it, after an exception ended the run."""
        for listener in self.listeners.values():
            if callable(getattr(listener, "close", None)):
                try:
                    listener.close()
                except Exception as second:  # not hidden: noted on the first error
                    kind = type(listener).__name__
                    error.add_note(f"{kind}.close failed too: {type(second).__name__}: {second}")


def named(listeners: Iterable[Listener]) -> dict[str, Listener]:
    """Return listeners by the name under which their state is saved: ``name``, or the class.

    Listeners of one name are numbered, so that the others find their state when one is removed.

    Example:
        >>> class Counting: ...
        >>> list(named([Counting(), Counting()]))
        ['Counting', 'Counting-2']
    """
    found: dict[str, Listener] = {}
    seen: Counter[str] = Counter()
    for listener in listeners:
        given = getattr(listener, "name", None)
        name = given if isinstance(given, str) else type(listener).__name__
        seen[name] += 1
        found[name if seen[name] == 1 else f"{name}-{seen[name]}"] = listener
    return found


def _on_rank_0(method: Callable[[Any], object]) -> Callable[[Any], object]:
    """Return a method of a listener that refuses to wait for ranks that do not call it."""

    def call(event: Event) -> object:
        with alone(
            "listeners are called on rank 0 only, unless they have the attribute every_rank = True "
            "(Every takes it as an argument). Set it, and let only the listener of "
            "rank 0 (TrainBegin.rank) print and write"
        ):
            return method(event)

    return call


def _failure(listener: Listener, event: Event, error: Exception) -> ListenerError:
    """Return the error for the exception of a listener."""
    failure = ListenerError(
        f"{type(listener).__name__}.{method_name(type(event))} failed at step "
        f"{event.state.counters.step}: {type(error).__name__}: {error}"
    )
    failure.add_note(
        "The exception above is the listener's own. Fix it and call fit again: with a directory "
        "the run resumes from the last good state"
    )
    return failure


def _writes_to(state: Any) -> tuple[list[Tensor], int]:
    """Return tensors of a state that listeners may reach, and how many writes there were to them.

    Of a program of a module these are the parameters alone, because this is done at each step.
    """
    tensors = [*params_of(state).values()] if type(state) is TrainState else flatten(state)
    try:
        return tensors, sum(map(_VERSION, tensors))
    except RuntimeError:  # a tensor that was made in inference mode counts no writes
        tensors = [tensor for tensor in tensors if not tensor.is_inference()]
        return tensors, sum(map(_VERSION, tensors))


def _written(listeners: list[Listener], event: Event) -> ListenerError:
    """Return the error for listeners of which one changed the run."""
    names = " or ".join(dict.fromkeys(type(one).__name__ for one in listeners))
    error = ListenerError(
        f"{method_name(type(event))} of {names} wrote in place to the state of step "
        f"{event.state.counters.step}, with which training would go on. A listener must leave it "
        "as it is; functrain.copy(event.state) may be written to. To train on from another state, "
        "end the run with functrain.Stop(), and begin one by fit(state=attrs.evolve(...))"
    )
    error.wrote_state = True
    return error


def _with_more(
    event: BatchEnd, found: Mapping[str, Tensor | float], listener: Listener
) -> BatchEnd:
    """Return the event with the metrics that a listener returned."""
    twice = sorted({"step", "epoch", *event.metrics} & found.keys())
    if twice:
        raise ListenerError(
            f"{type(listener).__name__}.on_batch_end returned metrics under names the step has "
            f"already: {twice}; give them others"
        )
    more = {name: _as_tensor(value) for name, value in found.items()}
    return attrs.evolve(event, metrics={**event.metrics, **more})


def _as_tensor(value: Tensor | float) -> Tensor:
    """Return a metric as a tensor, without rounding: whole numbers beyond 2**53 are no floats."""
    if isinstance(value, Tensor):
        return value.detach()
    whole = type(value) is int and -(1 << 63) <= value < 1 << 63
    return torch.tensor(value, dtype=torch.int64 if whole else torch.float64)
