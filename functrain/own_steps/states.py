"""The states of programs whose step is a function of the user."""

from __future__ import annotations

import functools
import keyword
from collections.abc import Mapping
from typing import Any, NoReturn

import attrs
import torch
from torch import Tensor

from functrain import tree
from functrain.core.rng import Rng, derive
from functrain.core.state import Counters, register
from functrain.errors import ConfigurationError, DonatedStateError, StateAssignmentError
from functrain.errors.nearest import unknown_attribute


def _refuse_assignment(state: object, name: str, value: object) -> NoReturn:
    raise StateAssignmentError(name)


@attrs.frozen(eq=False, repr=False)
class CustomState:
    """The state of a program of :func:`functrain.custom`.

    Attributes:
        tree: the user's own tree; its dicts are read-only.
        rng: root seed, from which the random stream of every step is derived.
        counters: step, epoch, batch and samples.
    """

    tree: Any = attrs.field(converter=tree.frozen)
    rng: Rng
    counters: Counters

    @property
    def ema(self) -> None:
        """Such a program keeps averages in its own tree."""
        return None

    @property
    def scheduler(self) -> dict[str, Any]:
        """Such a program has no schedules."""
        return {}

    @property
    def device(self) -> torch.device:
        """Where the first tensor is."""
        return device_of(self.tree)

    def __repr__(self) -> str:
        return _shown(self, "CustomState")


class JointState:
    """The state of a program of :func:`functrain.joint`: a state of each program, by name.

    Each set of names is a class of its own, so that a program's state is an attribute
    (``state.generator``) and its paths begin with its name (``generator.params.0.weight``).

    Attributes:
        rng: root seed, from which the random stream of every joint step is derived.
        counters: step, epoch, batch and samples of joint steps.
    """

    rng: Rng
    counters: Counters

    @property
    def states(self) -> dict[str, Any]:
        """The state of each program by name."""
        return {name: getattr(self, name) for name in names_of(type(self))}

    @property
    def ema(self) -> None:
        """Each program keeps its own average."""
        return None

    @property
    def scheduler(self) -> dict[str, Any]:
        """The tree of the schedules of each program."""
        return {name: state.scheduler for name, state in self.states.items()}

    @property
    def device(self) -> torch.device:
        """Where the first program's parameters are."""
        device: torch.device = next(iter(self.states.values())).device
        return device

    def __getattr__(self, name: str) -> Any:
        fields = names_of(type(self), all_fields=True)
        if name in fields:  # `donated` takes the fields of a consumed state
            raise DonatedStateError(name)
        raise unknown_attribute("JointState", name, fields, {})

    def __reduce__(self) -> tuple[Any, ...]:
        return joint_state, (self.states, self.rng, self.counters)

    def __repr__(self) -> str:
        return _shown(self, "JointState")


def joint_state(states: Mapping[str, Any], rng: Rng, counters: Counters) -> Any:
    """Return the state of several programs."""
    return joint_class(tuple(states))(**states, rng=rng, counters=counters)


@functools.cache
def joint_class(names: tuple[str, ...]) -> type[Any]:
    """Return the class of the states of programs of these names."""
    fields = {name: attrs.field() for name in (*names, "rng", "counters")}
    cls: Any = attrs.make_class(
        "JointState", fields, bases=(JointState,), frozen=True, eq=False, repr=False
    )
    cls.__module__, cls.__doc__ = JointState.__module__, JointState.__doc__
    cls.__setattr__ = _refuse_assignment
    register(cls, f"({','.join(names)})")
    return cls  # type: ignore[no-any-return]


def seed_of(name: str, seed: int) -> int:
    """Return the root seed of a program of a joint one."""
    return derive(seed, "joint", name)


def reseeded(state: Any, seed: int) -> Any:
    """Return a state with another root seed, from which those of programs within it follow."""
    if isinstance(state, JointState):
        each = {name: reseeded(one, seed_of(name, seed)) for name, one in state.states.items()}
        state = attrs.evolve(state, **each)  # type: ignore[misc]
    return attrs.evolve(state, rng=Rng(seed))


def names_of(cls: type, all_fields: bool = False) -> list[str]:
    """Return the names of the programs of a class of joint states, or those of all its fields."""
    found = [field.name for field in attrs.fields(cls)] if attrs.has(cls) else []
    return found if all_fields else found[:-2]


def check_name(name: object) -> None:
    """Refuse a name that cannot be an attribute of a joint state."""
    valid = isinstance(name, str) and name.isidentifier() and not keyword.iskeyword(name)
    if not valid or str(name).startswith("_") or str(name) in _RESERVED:
        raise ConfigurationError(
            f"joint: expected names of programs that can be attributes of a state, other than "
            f"{', '.join(sorted(_RESERVED))}; got {name!r}"
        )


def device_of(value: Any) -> torch.device:
    """Return where the first tensor of a tree is; the CPU without any."""
    leaves = (leaf for _, leaf in tree.items(value))
    first = next((leaf for leaf in leaves if isinstance(leaf, Tensor)), None)
    return torch.device("cpu") if first is None else first.device


def _shown(state: Any, name: str) -> str:
    counters = state.counters
    place = f"step={counters.step}, epoch={counters.epoch}, batch={counters.batch}"
    lines = [f"{name}({place}; {tree.totals(state)})"]
    for key, child in tree.children(state):
        if tree.is_node(child) and key not in ("rng", "counters"):
            lines += [f"  {key}: {tree.totals(child)}", tree.text(child, indent=4)]
    return "\n".join(lines)


_RESERVED = {"rng", "counters", "states", "ema", "scheduler", "device"}
CustomState.__setattr__ = _refuse_assignment  # type: ignore[method-assign]
register(CustomState)
