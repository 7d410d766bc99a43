"""What happens in a run, as frozen values, in one fixed order.

For every step: ``BatchBegin``, ``BatchEnd``; then, where they apply, ``EpochEnd``, ``EvalBegin``
and ``EvalEnd`` of each evaluation, ``EarlyStopped``, ``CheckpointSaved``. A run begins with
``TrainBegin`` and ends with ``TrainEnd``; an epoch that a limit cuts has its ``EpochEnd`` too.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias, get_args

import attrs
import torch
from torch import Tensor

from functrain.errors import ListenerError
from functrain.state import TrainState


@attrs.frozen
class TrainBegin:
    """A run begins, anew or resumed.

    Attributes:
        state: where it begins.
        steps: updates it is limited to, where that is known.
        batches: loader batches in an epoch, where that is known.
        resumed: the checkpoint it goes on from, if any.
    """

    state: TrainState
    steps: int | None
    batches: int | None
    resumed: Path | None


@attrs.frozen
class EpochBegin:
    """The first batch of an epoch, or the first after a resumption within one, is next."""

    state: TrainState
    epoch: int


@attrs.frozen
class BatchBegin:
    """A step is about to be made with ``batch``."""

    state: TrainState
    batch: Any


@attrs.frozen
class BatchEnd:
    """A step was made. ``metrics`` are 0-dim tensors, not yet fetched from the device.

    A listener that returns a mapping of more of them (or of numbers) adds to the row of the step in
    the log, and to the metrics that the listeners after it are given.
    """

    state: TrainState
    metrics: Mapping[str, Tensor]


@attrs.frozen
class EpochEnd:
    """An epoch ended.

    Attributes:
        state: where the run stands.
        epoch: which one, from 0.
        metrics: means over its samples, as numbers.
        complete: false where the run ended within the epoch.
    """

    state: TrainState
    epoch: int
    metrics: Mapping[str, float]
    complete: bool


@attrs.frozen
class EvalBegin:
    """An evaluation begins.

    Attributes:
        state: what is evaluated.
        name: the evaluation set.
        weights: ``params`` or ``ema``.
    """

    state: TrainState
    name: str
    weights: str


@attrs.frozen
class EvalEnd:
    """An evaluation ended.

    Attributes:
        state: what was evaluated.
        name: the evaluation set.
        weights: ``params`` or ``ema``.
        metrics: over its samples, as numbers.
        values: what these were computed of (:func:`functrain.evaluation.measure`), such as a
            :class:`functrain.metrics.ConfusionMatrix` with its counts.
    """

    state: TrainState
    name: str
    weights: str
    metrics: Mapping[str, float]
    values: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen
class EarlyStopped:
    """The early-stopping rule has decided that the run ends."""

    state: TrainState
    detail: str


@attrs.frozen
class CheckpointSaved:
    """A checkpoint is on the disk, durable."""

    state: TrainState
    path: Path


@attrs.frozen
class TrainEnd:
    """The run ended; ``reason`` is one of ``Run.reason``'s."""

    state: TrainState
    reason: str
    detail: str


Event: TypeAlias = (
    TrainBegin
    | EpochBegin
    | BatchBegin
    | BatchEnd
    | EpochEnd
    | EvalBegin
    | EvalEnd
    | EarlyStopped
    | CheckpointSaved
    | TrainEnd
)


@attrs.frozen
class Stop:
    """What a listener returns to end the run after the present step.

    Attributes:
        detail: why, for ``Run.detail``.
    """

    detail: str = "a listener asked for it"


# A listener is any object with methods named after events: on_train_begin, on_batch_end, ... If it
# has a method `close`, that is called where an exception ends a run, which then has no TrainEnd.
Listener: TypeAlias = Any


def method_name(event: type) -> str:
    """The listener method that receives an event.

    Example:
        >>> method_name(CheckpointSaved)
        'on_checkpoint_saved'
    """
    return "on" + re.sub("([A-Z])", lambda match: "_" + match[1].lower(), event.__name__)


@attrs.frozen
class Listeners:
    """Sends events to listeners in list order.

    A listener has any subset of the methods; which ones is looked up once, so that an event nobody
    listens to costs a dictionary look-up.
    """

    methods: dict[type, list[tuple[Listener, Callable[[Any], object]]]]

    @classmethod
    def of(cls, listeners: Iterable[Listener]) -> Listeners:
        """Find out who listens to what.

        Raises:
            ListenerError: an object has none of the methods.
        """
        events = get_args(Event)
        methods: dict[type, list[tuple[Listener, Callable[[Any], object]]]] = {
            event: [] for event in events
        }
        for listener in listeners:
            found = [e for e in events if callable(getattr(listener, method_name(e), None))]
            if not found:
                names = ", ".join(method_name(event) for event in events)
                raise ListenerError(f"{listener!r} has none of the methods of a listener: {names}")
            for event in found:
                methods[event].append((listener, getattr(listener, method_name(event))))
        return cls(methods)

    def send(self, event: Event) -> tuple[Event, Stop | None]:
        """Hand an event to those who listen to it.

        Returns:
            (the event, with the metrics that listeners added; the first request to stop, if any).

        Raises:
            ListenerError: from the exception of a listener; names event and listener.
        """
        stop = None
        for listener, method in self.methods[type(event)]:
            try:
                answer = method(event)
            except Exception as error:  # not hidden: raised again with its place named
                raise ListenerError(
                    f"{type(listener).__name__}.{method_name(type(event))} failed at step "
                    f"{event.state.counters.step}: {type(error).__name__}: {error}"
                ) from error
            if answer is None:
                continue
            stop = stop or (answer if isinstance(answer, Stop) else None)
            if isinstance(event, BatchEnd) and isinstance(answer, Mapping):
                event = _with_more(event, answer, listener)
        return event, stop

    def wants(self, event: type) -> bool:
        """Whether anyone listens to this kind of event."""
        return bool(self.methods[event])


def named(listeners: Iterable[Listener]) -> dict[str, Listener]:
    """Listeners by the name under which their state is saved: their ``name``, or their class.

    Several of one name are counted, so that the others find their state when one is taken away.

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


def close(listeners: Iterable[Listener], error: BaseException) -> None:
    """Let listeners go whose run an exception has ended; what fails in that is noted on it.

    Args:
        listeners: those with a method ``close`` count.
        error: the exception.
    """
    for listener in listeners:
        if callable(getattr(listener, "close", None)):
            try:
                listener.close()
            except Exception as second:  # not hidden: told with the error that came first
                name = type(listener).__name__
                error.add_note(f"{name}.close failed too: {type(second).__name__}: {second}")


def _with_more(
    event: BatchEnd, found: Mapping[str, Tensor | float], listener: Listener
) -> BatchEnd:
    """The event with the metrics that a listener returned."""
    twice = sorted({"step", "epoch", *event.metrics} & found.keys())
    if twice:
        raise ListenerError(
            f"{type(listener).__name__}.on_batch_end returned metrics under names the step has "
            f"already: {twice}; give them others"
        )
    more = {
        name: value.detach()
        if isinstance(value, Tensor)
        else torch.tensor(value, dtype=torch.float64)
        for name, value in found.items()
    }
    return attrs.evolve(event, metrics={**event.metrics, **more})
