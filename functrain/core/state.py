"""TrainState: everything that changes during training, as one immutable tree.

The classes are plain frozen records. Their fields hold dicts of tensors by module path
(``"encoder.0.weight"``) and plain Python numbers; no field is hidden, so a state that is saved
leaf by leaf and rebuilt is the same state.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any, NoReturn, TypeVar

import attrs
import torch
import torch.utils._pytree as pytree
from torch import Tensor

from functrain import tree
from functrain.core.batch_splitting import Split
from functrain.core.rng import Rng
from functrain.errors import DonatedStateError, EmptyBatchWarning, StateAssignmentError
from functrain.errors.base import warn
from functrain.errors.nearest import unknown_attribute

Tensors = dict[str, Tensor]


@attrs.frozen(eq=False)
class Counters:
    """Where a run stands.

    Attributes:
        step: updates made (calls that had samples), whatever the number of micro-batches.
        epoch: epochs completed.
        batch: loader batches consumed in the present epoch.
        samples: samples consumed since the start.
        empty: batches without samples, which were skipped.
        skipped: int64 scalar on the device: updates left out because of non-finite gradients.
    """

    step: int
    epoch: int
    batch: int
    samples: int
    empty: int
    skipped: Tensor

    @classmethod
    def initial(cls, device: torch.device) -> Counters:
        """Return the counters before the first step."""
        return cls(0, 0, 0, 0, 0, torch.zeros((), dtype=torch.int64, device=device))

    def __getattr__(self, name: str) -> Any:
        raise unknown_attribute("Counters", name, type(self).__annotations__, {})

    def after(self, given: Split, skipped: Tensor) -> Counters:
        """Return the counters after a step."""
        return Counters(
            step=self.step + (given.samples > 0),
            epoch=self.epoch,
            batch=self.batch + given.consumed,
            samples=self.samples + given.samples,
            empty=self.empty + given.empty,
            skipped=skipped,
        )

    def next_epoch(self) -> Counters:
        """Return the counters at the beginning of the next epoch."""
        return attrs.evolve(self, epoch=self.epoch + 1, batch=0)


class Loan:
    """Whether anybody but the step that made a state may have its tensors.

    Attributes:
        maker: what made them, in memory of their own: the only one that may write to them.
        model: of the step, whose structure the state fits; or what stands for several.
        is_open: whether somebody has read them.
        handed: states with the same tensors that were handed out, for as long as they are held.
    """

    __slots__ = ("handed", "is_open", "maker", "model")

    def __init__(self, maker: object, model: object) -> None:
        self.maker, self.model, self.is_open = maker, model, False
        self.handed: list[weakref.ref[TrainState]] = []

    def hand_out(self, state: TrainState) -> None:
        """Note that somebody may have a state, and so the tensors, for as long as it is held."""
        self.handed = [weakref.ref(state), *(one for one in self.handed if one() is not None)]

    def is_repaid(self) -> bool:
        """Return whether nobody has the tensors."""
        return not self.is_open and not any(one() is not None for one in self.handed)


class _Lendable:
    __slots__ = ("_loan",)


@attrs.frozen(eq=False, repr=False)
class TrainState(_Lendable):
    """Everything that changes, and nothing else; its mappings are read-only.

    Attributes:
        params: parameters by module path, frozen ones included.
        buffers: buffers by module path, persistent or not.
        optimizer: the optimizer's own tree (moments, step count, ...).
        scheduler: the schedule's own tree (horizon, plateau counters, ...).
        ema: averaged weights and buffers, or ``None``.
        loss_scale: dynamic scale of fp16 training, or ``None``.
        rng: root seed from which every step's random stream is derived.
        counters: step, epoch, batch, samples, and what was skipped.
    """

    params: Tensors = attrs.field(converter=tree.frozen)
    buffers: Tensors = attrs.field(converter=tree.frozen)
    optimizer: dict[str, Any] = attrs.field(converter=tree.frozen)
    scheduler: dict[str, Any] = attrs.field(converter=tree.frozen)
    ema: dict[str, Any] | None = attrs.field(converter=tree.frozen)
    loss_scale: Tensors | None = attrs.field(converter=tree.frozen)
    rng: Rng
    counters: Counters

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_loan", None)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        device: torch.device = next(iter(_SLOTS["params"].__get__(self).values())).device
        return device

    def __getattr__(self, name: str) -> Any:
        # Reached only when a field is gone: `donated` takes the fields of a consumed state.
        if name in _FIELDS:
            raise DonatedStateError(name)
        from functrain.diagnosis.other_names import STATE_ATTRIBUTES

        raise unknown_attribute("TrainState", name, _FIELDS, STATE_ATTRIBUTES)

    def __reduce__(self) -> tuple[Any, ...]:
        # Through the constructor, so that copies and pickles are read-only too.
        return TrainState, tuple(tree.thawed(getattr(self, name)) for name in _FIELDS)

    def __repr__(self) -> str:
        counters = self.counters
        place = f"step={counters.step}, epoch={counters.epoch}, batch={counters.batch}"
        parts = [f"TrainState({place}; {tree.totals(self)})"]
        for name, child in tree.children(self):
            if tree.is_node(child) and any(isinstance(x, Tensor) for _, x in tree.items(child)):
                parts += [f"  {name}: {tree.totals(child)}", tree.text(child, indent=4)]
            else:
                parts.append(f"  {name}: {child!r}")
        return "\n".join(parts)


def _refuse_assignment(state: TrainState, name: str, value: object) -> NoReturn:
    raise StateAssignmentError(name)  # attrs says only "can't set attribute"


TrainState.__setattr__ = _refuse_assignment  # type: ignore[assignment,method-assign]
_FIELDS = tuple(field.name for field in attrs.fields(TrainState))
_SLOTS: dict[str, Any] = {name: vars(TrainState)[name] for name in _FIELDS}


def _lending(slot: Any) -> property:
    """Return a field that notes when it is read: a reader may keep the tensors in it."""

    def read(state: TrainState) -> Any:
        if state._loan is not None:
            state._loan.is_open = True
        return slot.__get__(state)

    return property(read, slot.__set__, slot.__delete__)


for _name in ("params", "buffers", "optimizer", "ema"):
    setattr(TrainState, _name, _lending(_SLOTS[_name]))


def fields_of(state: TrainState, names: Iterable[str] = _FIELDS) -> dict[str, Any]:
    """Return the fields of a state to code that keeps nothing in them."""
    return {name: _SLOTS[name].__get__(state) for name in names}


# The parameters of a state, for code that keeps none of them.
params_of: Callable[[TrainState], Tensors] = _SLOTS["params"].__get__


def made_by(maker: object, model: object, state: TrainState) -> TrainState:
    """Return a new state that fits a model, whose tensors its maker alone has.

    ``None`` has made none of them.
    """
    return _with_loan(state, Loan(maker, model))


def is_made_for(model: object, state: object) -> bool:
    """Return whether a step of a model made a state, which then fits it."""
    loan = state._loan if isinstance(state, TrainState) else None
    return loan is not None and loan.model is model


State = TypeVar("State")


def handed_out(state: State) -> State:
    """Return a state to hand to code that may keep it; its tensors stay while it does."""
    if not isinstance(state, TrainState) or state._loan is None:
        return state
    twin = _with_loan(TrainState(**fields_of(state)), state._loan)
    state._loan.hand_out(twin)
    return twin  # type: ignore[return-value]


def lend(state: State) -> State:
    """Return a state whose tensors somebody has from now on."""
    if isinstance(state, TrainState) and state._loan is not None:
        state._loan.is_open = True
    return state


def with_fields(state: State, **changes: Any) -> State:
    """Return a state with other fields; while the given one is held, no step writes to either."""
    if not isinstance(state, TrainState):
        return attrs.evolve(state, **changes)  # type: ignore[misc]
    if state._loan is not None:
        state._loan.hand_out(state)
    return _with_loan(TrainState(**{**fields_of(state), **changes}), state._loan)  # type: ignore[return-value]


def _with_loan(state: TrainState, loan: Loan | None) -> TrainState:
    object.__setattr__(state, "_loan", loan)
    return state


def is_lent(state: object) -> bool:
    """Return whether somebody may have the tensors of a state, as of any that no step made."""
    return not isinstance(state, TrainState) or state._loan is None or not state._loan.is_repaid()


class Donation:
    """A state on its way into a step that may write to it.

    It is consumed when the first result is about to be written: a step that fails before has
    changed nothing, and a state that a step failed to finish cannot be used by mistake.

    Attributes:
        maker: the one that may write to the tensors, as nobody else has them.
    """

    def __init__(self, state: TrainState) -> None:
        self._state = state
        self._fields: dict[str, Any] = {}
        self.maker = None if is_lent(state) else state._loan.maker

    def lends_to(self, maker: object) -> bool:
        """Return whether a step may write to the tensors."""
        return maker is self.maker

    def take(self) -> None:
        """Take the fields of the state, so that any later use of it is an error."""
        if not self._fields:
            self._fields = fields_of(self._state)
            for name in _FIELDS:
                object.__delattr__(self._state, name)

    def give_back(self) -> None:
        """Return the fields to the state, if nothing was changed after all."""
        for name, value in self._fields.items():
            object.__setattr__(self._state, name, value)
        self._fields = {}


def without_samples(state: Any, given: Split) -> Any:
    """Count a batch without samples, and warn; nothing else of a state changes."""
    counters = state.counters.after(given, state.counters.skipped)
    warn(
        f"step {counters.step}: the batch has no samples; it was skipped and counted in "
        "state.counters.empty",
        EmptyBatchWarning,
    )
    return with_fields(state, counters=counters)


def is_consumed(state: Any) -> bool:
    """Return whether a donated step has taken a state."""
    try:
        if isinstance(state, TrainState):
            return not fields_of(state)
        fields = [getattr(state, field.name) for field in attrs.fields(type(state))]
    except (AttributeError, DonatedStateError):
        return True
    return any(isinstance(one, TrainState) and is_consumed(one) for one in fields)


def is_averaged(state: Any) -> bool:
    """Return whether a state has averaged weights."""
    ema = fields_of(state)["ema"] if isinstance(state, TrainState) else state.ema
    return ema is not None


def register(cls: type, kind: str = "") -> None:
    """Let torch's pytree (and so ``torch.func``) see the leaves of a class by path.

    ``kind`` tells it from other classes of its name.
    """
    names = [field.name for field in attrs.fields(cls)]
    pytree.register_pytree_node(
        cls,
        lambda node: ([getattr(node, name) for name in names], None),
        lambda values, _: cls(*values),
        flatten_with_keys_fn=lambda node: (
            [(pytree.GetAttrKey(name), getattr(node, name)) for name in names],
            None,
        ),
        serialized_type_name=f"functrain.{cls.__name__}{kind}",
    )


for _cls in (Rng, Counters, TrainState):
    register(_cls)
