"""Any ``torch.optim.Optimizer`` class as a pure optimizer."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

import attrs
import torch
from torch import Tensor, nn

from functrain.core.optimizer import Averages, LearningRate, Optimizer, OptimizerState, Params
from functrain.errors import ConfigurationError, UnsupportedError
from functrain.errors.calls import explained
from functrain.optim import hyperparameters, torch_state

_ELEMENTWISE = {
    *(torch.optim.Adadelta, torch.optim.Adagrad, torch.optim.Adam, torch.optim.AdamW),
    *(torch.optim.Adamax, torch.optim.ASGD, torch.optim.NAdam, torch.optim.RAdam),
    *(torch.optim.RMSprop, torch.optim.Rprop, torch.optim.SGD),
}


@explained
@attrs.frozen
class FromTorch(Optimizer):
    """A torch optimizer class and its arguments; made by :func:`from_torch`.

    Every update builds an object of the class over the given tensors, puts the state into it,
    lets it step, and takes the state out again, without ``load_state_dict`` and its casts. The
    state is ``{"state": {path: {name: value}}, "shared": {key: value}, "group": {name: value},
    "attributes": {name: value}}``: what the object keeps for each parameter and for all of them,
    for its parameter group, and in plain attributes that differ from those of a fresh object. The
    entry ``"made by"`` among these has the class's name and the group of a fresh object.
    Options may be changed when a run resumes, and count from then on; another class is refused.
    Dicts by parameter, or by its id, are ``{"keyed by": "param", "values": {path: value}}``.

    Args:
        cls: the class.
        lr: learning rate or schedule.
        options: the other arguments of the class.
    """

    cls: type[torch.optim.Optimizer]
    lr: LearningRate = attrs.field(validator=hyperparameters.rate)
    options: Mapping[str, Any] = attrs.field(factory=dict)

    lazy_state: ClassVar[bool] = True

    @property
    def elementwise(self) -> bool:
        """Return whether this is a class of torch that is known to be elementwise."""
        return self.cls in _ELEMENTWISE

    def takes(self, name: str) -> bool:
        """Tell whether the class has an argument of this name."""
        return name in inspect.signature(self.cls).parameters

    def init(self, params: Params) -> OptimizerState:
        """Return the state of a fresh object, in train mode if it has modes."""
        owned = {path: param.detach().clone() for path, param in params.items()}
        built = self._build(owned)
        fresh = torch_state.fresh_values(built)
        _set_mode(built, "train")
        return torch_state.extract(built, list(params), fresh)

    def update(
        self, grads: Params, state: OptimizerState, params: Params, lr: float | Tensor
    ) -> tuple[Params, OptimizerState]:
        """Let the class step on copies."""
        updated: Params = {path: param.detach().clone() for path, param in params.items()}
        new_state: OptimizerState = torch_state.copied(state)
        self.update_(grads, new_state, updated, lr)
        return updated, new_state

    def update_(
        self, grads: Params, state: OptimizerState, params: Params, lr: float | Tensor
    ) -> None:
        """Let the class step on the given tensors themselves."""
        built, fresh = self._restored(state, params, lr)
        # Gradients are copied: some classes scale them in place.
        for path, param in zip(params, _wrapped(built), strict=True):
            if path in grads:
                param.grad = grads[path].detach().clone()
        _set_mode(built, "train")
        try:
            with torch.no_grad():
                built.step()
        except KeyError as error:
            torch_state.refuse_missing(built, list(params), error.args[0] if error.args else None)
            raise
        _write_back(params, built)
        state.update(torch_state.extract(built, list(params), fresh))

    def averages(self) -> list[Averages] | None:
        """Say nothing of a class with an ``eval()`` mode: only that knows its weights."""
        return None if callable(getattr(self.cls, "eval", None)) else []

    def eval_params(self, state: OptimizerState, params: Params) -> Params:
        """Return the weights of the class's ``eval()`` mode, or `params` if it has none."""
        if not callable(getattr(self.cls, "eval", None)):
            return params
        averaged = {path: param.detach().clone() for path, param in params.items()}
        lr = self.lr if isinstance(self.lr, float | int | Tensor) else None
        built, _ = self._restored(torch_state.copied(state), averaged, lr)
        _set_mode(built, "eval")
        _write_back(averaged, built)
        return averaged

    def _build(self, params: Params) -> torch.optim.Optimizer:
        # The object is built with the lr it would have in plain PyTorch, or its own default
        # where that is a schedule; the lr of the step is set on its group afterwards.
        options = dict(self.options)
        if not callable(self.lr):
            options["lr"] = self.lr
        elif _required(self.cls, "lr"):
            options["lr"] = 1.0
        wrapped = [
            nn.Parameter(param.detach(), param.is_floating_point() or param.is_complex())
            for param in params.values()
        ]
        try:
            built = self.cls(wrapped, **options)
        except (AssertionError, RuntimeError, TypeError, ValueError) as error:
            raise UnsupportedError(
                f"from_torch: {self.cls.__name__} refuses its arguments or the parameters "
                f"{list(params)[:5]}: {error}"
            ) from error
        held = built.param_groups[0]["params"]
        if len(built.param_groups) > 1 or list(map(id, held)) != list(map(id, wrapped)):
            raise UnsupportedError(
                f"from_torch: {self.cls.__name__} puts its parameters into groups or an order of "
                "its own, so they cannot be identified by name"
            )
        return built

    def _restored(
        self, state: OptimizerState, params: Params, lr: float | Tensor | None
    ) -> tuple[torch.optim.Optimizer, dict[str, Any]]:
        built = self._build(params)
        fresh = torch_state.fresh_values(built)
        torch_state.restore(built, list(params), state)
        if lr is not None:
            built.param_groups[0]["lr"] = lr
        return built, fresh


def from_torch(
    cls: type[torch.optim.Optimizer], lr: LearningRate | None = None, **options: Any
) -> FromTorch:
    """Make a pure optimizer of a torch optimizer class.

    Args:
        cls: a subclass of ``torch.optim.Optimizer``, from torch or from anyone.
        lr: learning rate or schedule; by default the class's own default.
        **options: the other arguments of the class.

    Raises:
        UnsupportedError: it is no such class, its ``step`` needs a closure, or it does
            not take these arguments.
        ConfigurationError: `lr` is not a learning rate, or neither given nor of the class.

    Example:
        >>> rmsprop = from_torch(torch.optim.RMSprop, lr=0.1, alpha=0.5)
        >>> params = {"w": torch.tensor([1.0])}
        >>> state, grads = rmsprop.init(params), {"w": torch.tensor([2.0])}
        >>> new, state = rmsprop.update(grads, state, params, 0.1)
        >>> new["w"], sorted(state["state"]["w"])
        (tensor([0.8586]), ['square_avg', 'step'])
    """
    if not (isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer)):
        raise UnsupportedError(
            f"from_torch: expected a subclass of torch.optim.Optimizer, got {cls!r}{_named(cls)}"
        )
    if _required(cls.step, "closure"):
        raise UnsupportedError(
            f"from_torch: {cls.__name__}.step needs a closure that evaluates the loss again, "
            "which an update that is given gradients does not have; choose another optimizer"
        )
    lr = _default(cls, "lr") if lr is None else lr
    if lr is None:
        raise ConfigurationError(
            f"from_torch: {cls.__name__} has no default learning rate; give one, as in "
            f"from_torch({cls.__name__}, lr=1e-3)"
        )
    try:
        inspect.signature(cls).bind([], lr=lr, **options)
    except TypeError as error:
        raise UnsupportedError(
            f"from_torch: {cls.__name__} does not take these arguments: {error}; "
            f"it is {cls.__name__}{inspect.signature(cls)}"
        ) from error
    return FromTorch(cls, lr, options)


def _default(function: Any, name: str) -> Any:
    parameter = inspect.signature(function).parameters.get(name)
    if parameter is None or parameter.default is inspect.Parameter.empty:
        return None
    return parameter.default


def _named(cls: object) -> str:
    """Return how a configuration names a class, if a text was given for one."""
    if not isinstance(cls, str):
        return ""
    path = cls if "." in cls else f"torch.optim.{cls}"
    return (
        f". Give the class, not its name; in a configuration it is "
        f"cls: {{_target_: functrain.config.imported, path: {path}}}"
    )


def _required(function: Any, name: str) -> bool:
    parameter = inspect.signature(function).parameters.get(name)
    return parameter is not None and parameter.default is inspect.Parameter.empty


def _wrapped(built: torch.optim.Optimizer) -> list[Tensor]:
    return list(built.param_groups[0]["params"])


def _set_mode(built: torch.optim.Optimizer, mode: str) -> None:
    method = getattr(built, mode, None)
    if callable(method):
        method()


def _write_back(params: Params, built: torch.optim.Optimizer) -> None:
    """Copy parameters that the class replaced (``p.data = ...``) instead of changing."""
    for param, wrapped in zip(params.values(), _wrapped(built), strict=True):
        if wrapped.data_ptr() != param.data_ptr():
            param.copy_(wrapped.detach())
