"""Log images, figures and texts to experiment trackers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from attrs.converters import optional

from functrain.errors import UnsupportedError
from functrain.errors.calls import explained
from functrain.listeners.every import Sampler
from functrain.listeners.intervals import Interval
from functrain.listeners.sinks.media import as_medium
from functrain.listeners.sinks.sink import Sink


def _sinks(given: Sink | Sequence[Sink]) -> tuple[Sink, ...]:
    return (given,) if isinstance(given, Sink) else tuple(given)


def _takes_media(_: Any, attribute: attrs.Attribute[Any], sinks: tuple[Sink, ...]) -> None:
    for sink in sinks:
        if not isinstance(sink, Sink) or not hasattr(sink.destination, "write_media"):
            name = sink.name if isinstance(sink, Sink) else repr(sink)
            raise UnsupportedError(
                f"Media: {name} takes numbers only: give to= a TensorBoard, WandB, MLflow or "
                "Trackio, or several of them"
            )


@explained
@attrs.define(eq=False)
class Media(Sampler):
    """A listener that logs images, figures and texts to trackers.

    It does not change training, and a resumed run logs the same: random generators are seeded from
    state and step. Each item is written in order with the metrics of its step.

    Args:
        program: the program that is trained.
        function: (program, state) -> what to log, by name: strings, figures of matplotlib, images
            (tensors, arrays or PIL images; uint8, or floats from 0 to 1).
        to: a sink of a tracker, or several; the same objects as in ``listeners``.
        every: the interval, a duration; by default each evaluation.

    Raises:
        UnsupportedError: a sink takes numbers only.

    Example:
        >>> import functrain as ft, tempfile, torch
        >>> program = ft.program(torch.nn.Linear(2, 1), lambda m, b: m(b).mean(), ft.optim.SGD(0.1))
        >>> def weights(program, state):
        ...     return {"weight": state.params["weight"].sigmoid(), "note": "text"}
        >>> board = ft.listeners.TensorBoard(tempfile.mkdtemp())
        >>> media = Media(program, weights, to=board, every="2 steps")
        >>> run = ft.fit(program, [torch.ones(4, 2)], until="4 steps", listeners=[board, media])
    """

    to: tuple[Sink, ...] = attrs.field(converter=_sinks, validator=_takes_media)
    every: Interval | None = attrs.field(default=None, converter=optional(Interval))

    def receive(self, step: int, found: Any) -> None:
        """Add what the function returned to the sinks.

        Raises:
            UnsupportedError: it is no dict.
        """
        if not isinstance(found, Mapping):
            raise UnsupportedError(
                f"the function of Media returned a {type(found).__name__}; expected a dict of "
                "strings, images and figures by name"
            )
        if self._writes:
            media = [as_medium(step, name, value) for name, value in found.items()]
            for sink in self.to:
                sink.add_media(media)
