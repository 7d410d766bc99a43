"""Random generators that a loader or its samplers own, whose states a resumed run needs."""

from __future__ import annotations

import contextlib
import json
import random
import sys
from collections.abc import Iterator
from typing import Any

from torch import Generator, Tensor
from torch.utils.data import Sampler

State = Tensor | str
"""The state of a generator of torch; that of NumPy or Python as JSON."""


def generators(data: Any) -> dict[str, Any]:
    """Return the generators of torch, NumPy and Python in attributes of a loader's samplers."""
    found: dict[str, Any] = {}
    seen = {id(None)}

    def look(place: str, part: Any) -> None:
        held = {"generator": getattr(part, "generator", None), **getattr(part, "__dict__", {})}
        if id(part) in seen:
            return
        seen.add(id(part))
        for name, value in held.items():
            if _is_generator(value):
                found[place if name == "generator" else f"{place}.{name}"] = value
            elif isinstance(value, Sampler) or name == "sampler":
                look(f"{place}.{name}", value)
            elif isinstance(value, list | tuple) and value and isinstance(value[0], Sampler):
                for index, each in enumerate(value):
                    look(f"{place}.{name}.{index}", each)

    if _is_generator(own := getattr(data, "generator", None)):
        found["loader"] = own
    look("sampler", getattr(data, "sampler", None))
    look("batch_sampler", getattr(data, "batch_sampler", None))
    return found


def generator_states(data: Any) -> dict[str, State]:
    """Return the states of these generators."""
    return {place: _state(generator) for place, generator in generators(data).items()}


def set_generator_states(data: Any, states: dict[str, State]) -> None:
    """Restore the states of these generators."""
    for place, generator in generators(data).items():
        if place in states:
            _set_state(generator, states[place])


@contextlib.contextmanager
def keep_generators(data: Any) -> Iterator[None]:
    """Let a loader draw from generators of its own, and put them back at the end."""
    held = generator_states(data)
    try:
        yield
    finally:
        set_generator_states(data, held)


def _is_generator(value: object) -> bool:
    if isinstance(value, random.Random):
        return not isinstance(value, random.SystemRandom)  # which has no state
    numpy: Any = sys.modules.get("numpy")
    kinds = () if numpy is None else (numpy.random.Generator, numpy.random.RandomState)
    return isinstance(value, (Generator, *kinds))


def _state(generator: Any) -> State:
    if isinstance(generator, Generator):
        return generator.get_state()
    if isinstance(generator, random.Random):
        return json.dumps(generator.getstate())
    bits = getattr(generator, "bit_generator", None)  # a RandomState has none
    state = generator.get_state(legacy=False) if bits is None else bits.state
    return json.dumps(state, default=_plain)


def _set_state(generator: Any, state: Any) -> None:
    if isinstance(generator, Generator):
        generator.set_state(state)
    elif isinstance(generator, random.Random):
        version, internal, gauss = json.loads(state)
        generator.setstate((version, tuple(internal), gauss))
    elif hasattr(generator, "bit_generator"):
        generator.bit_generator.state = json.loads(state, object_hook=_restored)
    else:
        generator.set_state(json.loads(state, object_hook=_restored))


def _plain(array: Any) -> dict[str, Any]:
    return {"dtype": str(array.dtype), "values": array.tolist()}


def _restored(node: dict[str, Any]) -> Any:
    is_array = node.keys() == {"dtype", "values"}
    return sys.modules["numpy"].array(node["values"], node["dtype"]) if is_array else node
