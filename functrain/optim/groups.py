"""Several optimizers over one set of parameters, chosen by path; ``Frozen`` trains none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, TypeAlias

import attrs
from torch import Tensor

from functrain.core.optimizer import (
    Averages,
    NamedParams,
    Optimizer,
    OptimizerState,
    Params,
    means,
)
from functrain.errors import ConfigurationError
from functrain.errors.calls import explained
from functrain.errors.nearest import nearest
from functrain.optim.averages import declared

Pattern: TypeAlias = str | Sequence[str] | Callable[[str, Tensor], bool]


@explained
@attrs.frozen
class Frozen(Optimizer):
    """The group of parameters that are not trained: no gradient, no state, no learning rate.

    Example:
        >>> import torch
        >>> Frozen().init({"w": torch.zeros(2)})
        {}
    """

    elementwise: ClassVar[bool] = True

    @property
    def lr(self) -> float:
        """Zero, for code that shows one learning rate a group."""
        return 0.0

    def trained(self, params: Params) -> list[str]:
        """Return no path."""
        return []

    def init(self, params: Params) -> OptimizerState:
        """Return an empty state."""
        return {}

    def update(
        self, grads: Params, state: OptimizerState, params: Params, lr: Any = 0.0
    ) -> tuple[Params, OptimizerState]:
        """Return everything as it was."""
        return dict(params), {}

    def update_(self, grads: Params, state: OptimizerState, params: Params, lr: Any = 0.0) -> None:
        """Do nothing."""


@explained
@attrs.frozen
class Groups(Optimizer):
    """An optimizer for each group of parameters; made by :func:`groups`.

    Args:
        patterns: what each member is for; the first that matches a parameter has it.
        members: name (``"0"``, ``"1"``, ...) and optimizer of each.
        allow_unused: whether a pattern may match no parameter; its member is then left out.
        assignment: path to member's name, once resolved by `bind`.
    """

    patterns: tuple[Pattern, ...]
    members: tuple[tuple[str, Optimizer], ...]
    allow_unused: bool = attrs.field(default=False, repr=False)
    assignment: Mapping[str, str] | None = attrs.field(default=None, eq=False, repr=False)

    @property
    def lr(self) -> dict[str, Any]:
        """The learning rates or schedules of the members that train, by name."""
        return {name: member.lr for name, member in self._trained()}

    @property
    def lazy_state(self) -> bool:
        """Return whether the first update adds entries to the state of any member."""
        return any(member.lazy_state for _, member in self.members)

    def assign(self, params: Params) -> dict[str, str]:
        """Return which member has each parameter.

        Args:
            params: all parameters of the model.

        Raises:
            ConfigurationError: a parameter matches no pattern, or a pattern no parameter.
        """
        for pattern, (name, _) in zip(self.patterns, self.members, strict=True):
            self._check_used(pattern, name, params)
        assigned = {path: self._member_of(path, params) for path in params}
        self._check_order(assigned, params)
        return assigned

    def bind(self, params: Params) -> Groups:
        """Return the same groups with their patterns resolved.

        Without it every update matches all paths again, and does not compile as one graph.

        Args:
            params: all parameters of the model; only paths, shapes and dtypes should decide.

        Raises:
            ConfigurationError: a parameter matches no pattern, or a pattern no parameter.
        """
        bound = attrs.evolve(self, assignment=self.assign(params))
        parts = bound.parts(params, params)
        kept = [
            (pattern, (name, member.bind(_part_of(params, parts[name]))))
            for pattern, (name, member) in zip(self.patterns, self.members, strict=True)
            if parts[name] or not self.allow_unused
        ]
        patterns, members = zip(*kept, strict=True) if kept else ((), ())
        return attrs.evolve(bound, patterns=patterns, members=members)

    def trained(self, params: Params) -> list[str]:
        """Return the paths that the members train, those of a `Frozen` one left out.

        Args:
            params: all parameters of the model.

        Raises:
            ConfigurationError: a parameter matches no pattern, or a pattern no parameter.

        Example:
            >>> import torch
            >>> from functrain.optim import SGD
            >>> params = {"head.weight": torch.zeros(2), "body.weight": torch.zeros(2)}
            >>> groups([("head.*", SGD(0.1)), ("*", Frozen())]).trained(params)
            ['head.weight']
        """
        assignment, trained = self.assign(params), set[str]()
        for name, member in self.members:
            own = [path for path in params if assignment[path] == name]
            trained.update(member.trained(_part_of(params, own)))
        return [path for path in params if path in trained]

    def init(self, params: Params) -> OptimizerState:
        """Return the members' states by name.

        Args:
            params: the parameters to train; those of a `Frozen` group may be left out.

        Raises:
            ConfigurationError: a parameter matches no pattern; or a pattern matches no parameter,
                and no `bind` saw it match one.
        """
        if self.assignment is None:
            for pattern, (name, member) in zip(self.patterns, self.members, strict=True):
                if not isinstance(member, Frozen):
                    self._check_used(pattern, name, params)
        parts = self.parts(params, params)
        return {name: member.init(parts[name]) for name, member in self._trained()}

    def update(
        self, grads: Params, state: OptimizerState, params: Params, lr: Mapping[str, Any]
    ) -> tuple[Params, OptimizerState]:
        """Let every member update its own parameters by its own learning rate."""
        parts, given = self.parts(params, params), self.parts(grads, params)
        updated, states = dict(params), {}
        for name, member in self._trained():
            own, states[name] = member.update(given[name], state[name], parts[name], lr[name])
            updated.update(own)
        return updated, states

    def update_(
        self, grads: Params, state: OptimizerState, params: Params, lr: Mapping[str, Any]
    ) -> None:
        """Let every member update its own parameters in place."""
        parts, given = self.parts(params, params), self.parts(grads, params)
        for name, member in self._trained():
            member.update_(given[name], state[name], parts[name], lr[name])

    def averages(self) -> list[Averages] | None:
        """Say what each member says."""
        said = [declared(member, name) for name, member in self._trained()]
        return None if None in said else [one for each in said for one in each or ()]

    def eval_params(self, state: OptimizerState, params: Params) -> Params:
        """Return what each member evaluates with."""
        parts, weights = self.parts(params, params), dict(params)
        for name, member in self._trained():
            weights.update(member.eval_params(state[name], parts[name]))
        return weights

    def _trained(self) -> Iterable[tuple[str, Optimizer]]:
        return ((name, member) for name, member in self.members if not isinstance(member, Frozen))

    def parts(self, values: Params, params: Params) -> dict[str, Params]:
        """Split a dict by path into one for each member.

        Args:
            values: by path.
            params: the parameters of these paths, which decide.
        """
        parts: dict[str, Params] = {name: {} for name, _ in self.members}
        known = self.assignment or {}
        for path, value in values.items():
            parts[known.get(path) or self._member_of(path, params)][path] = value
        return parts

    def _member_of(self, path: str, params: Params) -> str:
        for pattern, (name, _) in zip(self.patterns, self.members, strict=True):
            if means(pattern, path, params):
                return name
        globs = [glob for pattern in self.patterns for glob in _globs(pattern)]
        raise ConfigurationError(
            f"parameter {path!r} of shape {tuple(params[path].shape)} belongs to no group"
            f"{nearest(path, globs) or f'; the patterns are {globs}'}. "
            "Add a pattern for it, or end with ('*', optimizer)."
        )

    def _check_order(self, assigned: Mapping[str, str], params: Params) -> None:
        """Refuse a group whose parameters belong to earlier groups with more, as those of "*"."""
        used = set(assigned.values())
        for number, (pattern, (name, _)) in enumerate(
            zip(self.patterns, self.members, strict=True)
        ):
            if name in used or self.allow_unused:
                continue
            own = [path for path in params if means(pattern, path, params)]
            takers = {assigned[path] for path in own}
            taken = sum(taker in takers for taker in assigned.values())
            if taken > len(own) or pattern in self.patterns[:number]:
                raise ConfigurationError(
                    f"group {name}: all parameters that pattern {pattern!r} matches belong to "
                    "groups before it, and the first that matches has them. Put it before those"
                )

    def _check_used(self, pattern: Pattern, name: str, params: Params) -> None:
        # A glob among several is checked too: that is where a misspelt name would hide.
        if self.allow_unused:
            return
        for part in [pattern] if callable(pattern) else _globs(pattern):
            if not any(means(part, path, params) for path in params):
                raise ConfigurationError(
                    f"group {name}: pattern {part!r} matches none of the {len(params)} "
                    f"parameters{nearest(str(part), params)}"
                )


@explained
def groups(members: Sequence[tuple[Pattern, Optimizer]]) -> Groups:
    """Give each group of parameters its own optimizer; the first match wins.

    Args:
        members: pairs of a pattern and an optimizer. A pattern is a glob over paths, several
            globs, or a predicate ``(path, tensor) -> bool`` of path, shape and dtype.

    Raises:
        ConfigurationError: there is no pair, or a pair is not a pattern and an optimizer.

    Example:
        >>> import torch
        >>> from functrain.optim import SGD
        >>> sgd = groups([(["*.bias", "norm.*"], SGD(0.1)), ("*", SGD(0.1, weight_decay=0.01))])
        >>> sgd.assign({"a.weight": torch.zeros(2), "a.bias": torch.zeros(2)})
        Traceback (most recent call last):
        functrain.errors.ConfigurationError: group 0: pattern 'norm.*' matches none of the 2 ...
    """
    if isinstance(members, Mapping):
        raise ConfigurationError(
            "groups: expected a list of (pattern, optimizer), in the order in which they are "
            f"tried, got a dict: {members!r}"
        )
    pairs = list(members)
    if not pairs:
        raise ConfigurationError("groups: expected at least one (pattern, optimizer), got none")
    for index, pair in enumerate(pairs):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise ConfigurationError(
                f"groups: entry {index}: expected (pattern, optimizer), got {pair!r}"
            )
        _check_pair(index, *pair)
    patterns = tuple(pattern for pattern, _ in pairs)
    return Groups(patterns, tuple((str(i), optimizer) for i, (_, optimizer) in enumerate(pairs)))


def _part_of(params: Params, paths: Iterable[str]) -> Params:
    """Return some parameters, with their other names."""
    return NamedParams({path: params[path] for path in paths}, getattr(params, "others", {}))


def _globs(pattern: Pattern) -> list[str]:
    if callable(pattern):
        return []
    return [pattern] if isinstance(pattern, str) else list(pattern)


def _check_pair(index: int, pattern: object, optimizer: object) -> None:
    globs = [pattern] if isinstance(pattern, str) else pattern
    listed = isinstance(globs, list | tuple) and all(isinstance(glob, str) for glob in globs)
    if not (callable(pattern) or (listed and globs)):
        raise ConfigurationError(
            f"groups: pattern {index}: expected a glob, a list of globs or a predicate "
            f"(path, tensor) -> bool, got {pattern!r}"
        )
    if isinstance(optimizer, type) or not isinstance(optimizer, Optimizer):
        raise ConfigurationError(
            f"groups: entry {index} must have an optimizer such as AdamW(lr=1e-3), "
            f"got {optimizer!r}"
        )
