"""Random numbers by member: those that each member would draw alone.

``vmap(randomness="different")`` draws the numbers of all members at once, so those of one would
depend on how many others there are. Below vmap such an operation is one on ``[members, ...]``; the
modes here make it member by member, from a stream of each, or leave a place for it in a graph.
"""

from __future__ import annotations

import contextlib
import functools
import random
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain.core.accumulation import part_stream
from functrain.core.global_generators import device_generator
from functrain.core.rng import derive
from functrain.errors import UnsupportedError
from functrain.transforms.torch_internals import TorchDispatchMode, arguments, is_in_place

_IN_PLACE = {
    "rand": "uniform_",
    "rand_like": "uniform_",
    "randn": "normal_",
    "randn_like": "normal_",
    "randint": "random_",
    "randint_like": "random_",
    "bernoulli": "bernoulli_",
}
_FILLING = frozenset(
    ("bernoulli_", "uniform_", "normal_", "exponential_", "random_", "geometric_", "log_normal_")
)
_FACTORIES = frozenset(("rand", "randn", "randint"))


@attrs.frozen
class Draw:
    """A random operation of every member.

    Attributes:
        method: of Tensor, that fills one in place.
        like: of one member, without values: shape, strides, dtype and device count.
    """

    method: str
    args: tuple[Any, ...]
    like: Tensor

    def fill(self, tensor: Tensor) -> None:
        """Fill a tensor of one member from the default generator of its device."""
        getattr(tensor, self.method)(*self.args)


@attrs.define(eq=False)
class Streams:
    """The random streams of the members of one step.

    Torch's generator goes through the states that it has in the step of member 0 alone. They say
    where the others stand, also where activation checkpointing puts it back to draw again.

    Attributes:
        roots: the seed of each member.
        path: of the streams, as ``("step", 7)``.
        parts: of the step, each of which has streams of its own.
        states: of the generator of each member, by that of member 0.
    """

    roots: Sequence[int]
    path: tuple[int | str, ...]
    parts: int = 1
    states: dict[bytes, list[Tensor]] = attrs.field(factory=dict, init=False)

    @property
    def members(self) -> int:
        """How many there are."""
        return len(self.roots)

    @functools.cached_property
    def seeds(self) -> dict[int, list[int]]:
        """By the seed of member 0 in a part of the step, that of each member.

        Under a seed that is not among them, as one that the loss sets, all members draw alike.
        They are found when something is drawn: most steps draw nothing.
        """
        own = [derive(root, *self.path) for root in self.roots]
        by_part = [[part_stream(seed, part) for seed in own] for part in range(self.parts)]
        return {seeds[0]: seeds for seeds in by_part}

    def draw(self, draw: Draw, into: Sequence[Tensor]) -> None:
        """Fill the tensors of all members, each from its own stream."""
        generator = device_generator(draw.like.device) or torch.default_generator
        before = generator.get_state()
        states = self.states.get(_key(before))
        after = []
        for member, tensor in enumerate(into):
            if states is None:
                generator.manual_seed(self._seed(generator, before, member))
            else:
                generator.set_state(states[member])
            draw.fill(tensor)
            after.append(generator.get_state())
        generator.set_state(after[0])
        self.states[_key(after[0])] = after

    def _seed(self, generator: torch.Generator, before: Tensor, member: int) -> int:
        """Return the seed with which a member begins where nothing was drawn yet."""
        if not member:
            self._started = generator.initial_seed()
            generator.manual_seed(self._started)
            if not torch.equal(generator.get_state(), before):
                raise UnsupportedError(
                    "the model or the loss sets the state of torch's generator, which a population "
                    "cannot follow by member. Seed it with torch.manual_seed, or train the members "
                    "one by one, pop.programs[i]"
                )
        own = self.seeds.get(self._started)
        return self._started if own is None else own[member]

    _started: int = attrs.field(default=0, init=False)


def _key(state: Tensor) -> bytes:
    return state.numpy().tobytes()


class MemberDraws(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within it, a random operation below vmap draws for each member from a stream of its own."""

    def __init__(self, streams: Streams) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._streams = streams

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not draws(func, args, kwargs):
            return func(*args, **(kwargs or {}))
        draw = described(func, args, kwargs or {}, self._streams.members)
        if is_in_place(func):
            into = args[0].unbind()
            self._streams.draw(draw, into)
            return args[0]
        own = [torch.empty_like(draw.like) for _ in range(self._streams.members)]
        self._streams.draw(draw, own)
        return torch.stack(own)


@contextlib.contextmanager
def refuse_other_generators() -> Iterator[None]:
    """Refuse code that draws from ``random`` or NumPy, whose numbers all members would share."""
    before = _others()
    yield
    if _others() != before:
        raise UnsupportedError(
            "the model or the loss draws from random or numpy.random. A population calls it once "
            "for all members, so they would share these numbers: draw with torch.rand and the like"
        )


def _others() -> Any:
    """Return where the generators of ``random`` and NumPy stand."""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is None:
        return random.getstate()
    state = numpy_random.get_state(legacy=False)["state"]
    return random.getstate(), repr({k: v for k, v in state.items() if k != "key"}), _first(state)


def _first(state: dict[str, Any]) -> int | None:
    return int(state["key"][0]) if "key" in state else None


def draws(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> bool:
    """Return whether an operation draws random numbers."""
    if torch.Tag.nondeterministic_seeded not in func.tags:
        return False
    # Attention carries the tag without dropout, too.
    given = {argument.name: value for argument, value in arguments(func, args, kwargs or {})}
    return "dropout_p" not in given or bool(given["dropout_p"])


def described(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], members: int) -> Draw:
    """Return a random operation on ``[members, ...]`` as that of one member."""
    name = func.overloadpacket.__name__
    if any(isinstance(one, torch.Generator) for one in (*args, *kwargs.values())):
        raise UnsupportedError(
            f"torch.{name} draws from a generator that it is given, which a population cannot do "
            "for each member. Leave generator= out; a member has a stream of its own, as a "
            "program has. Or train the members one by one, pop.programs[i]"
        )
    if name in _FACTORIES:
        at = [argument.name for argument, _ in arguments(func, args, kwargs)].index("size")
        size, numbers = args[at], args[:at]
        if size[0] == members:
            options = {k: kwargs[k] for k in ("dtype", "device") if kwargs.get(k) is not None}
            if name == "randint":
                options.setdefault("dtype", torch.int64)
            like = torch.empty(size[1:], **options)
            return Draw(_IN_PLACE[name], _bounds(name, numbers), like)
    tensors = [one for one in args if isinstance(one, Tensor)]
    method = _IN_PLACE.get(name, name)
    by_values = name == "bernoulli" and len(args) < 2  # of the tensor are the probabilities
    if method in _FILLING and len(tensors) == 1 and _is_axis(args[0], members) and not by_values:
        numbers = () if name in ("rand_like", "randn_like") else args[1:]
        like = torch.empty_like(args[0][0], dtype=kwargs.get("dtype"))
        return Draw(method, _bounds(name, numbers), like)
    raise UnsupportedError(
        f"torch.{name} cannot be drawn by each member of a population from a stream of its own. "
        "Draw with dropout, torch.rand, torch.randn, torch.randint, their _like forms or "
        "torch.bernoulli with one probability; or train the members one by one, pop.programs[i]"
    )


def _bounds(name: str, numbers: tuple[Any, ...]) -> tuple[Any, ...]:
    return (0, *numbers) if name.startswith("randint") and len(numbers) == 1 else numbers


def _is_axis(tensor: Any, members: int) -> bool:
    return isinstance(tensor, Tensor) and tensor.ndim > 0 and tensor.shape[0] == members


def streams_of(
    seeds: Sequence[int], path: tuple[int | str, ...], parts: int = 1
) -> tuple[int, Streams]:
    """Return the seed that torch's generator gets in a step, and the streams of its members.

    Each of the ``parts`` of a step has a stream of its own.
    """
    return derive(seeds[0], *path), Streams(seeds, path, parts)
