"""A module as a function of its tensors, which are put into it for one call.

As by ``torch.func.functional_call``, the module is the user's own, so hooks and objects that it
shares with a loss go on to work. That looks up each tensor by name at each call, which doubles the
forward time of a model of many small layers. Here their places are found once, and binding is one
assignment each. Afterwards the module has the tensors and the modes that it had before.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import attrs
from torch import Tensor, nn

from functrain.core.buffers import Statistic, statistics
from functrain.core.in_place_writes import InPlaceWrites
from functrain.core.module_attributes import Attributes
from functrain.core.module_tensors import (
    OutsideParameters,
    Place,
    Places,
    aliases,
    all_paths,
    lists,
    plain_paths,
    tensor_places,
)
from functrain.core.optimizer import NamedParams
from functrain.core.rng import turn
from functrain.core.state import Tensors
from functrain.core.user_module import Factory, copy_module, made_by, refuse
from functrain.errors import ModelError
from functrain.tree.torch_internals import is_below_func


@attrs.frozen(eq=False, repr=False)
class FunctionalModule:
    """A module without state: its structure, its initial values, and the places of its tensors.

    Attributes:
        module: the user's own, or the one that the factory made.
        factory: makes modules with fresh initial values, or ``None``.
        params: initial parameters by path (ties appear once, under their first name).
        requires_grad: paths that the user's module marks as trainable.
        paths: of the tensors in ``places``, in which a tensor may be more than once.
        places: every place that is bound: those of tensors, then the ``training`` flags and lists
            of tensors, which a forward may replace by others (``nn.LSTM`` does).
        modes: the flags and lists in training and in evaluation.
        param_places: for each parameter, the place where ``nn.Module`` holds it.
        aliases: second names of tied tensors, each with the path it stands for.
        hooks: tensor hooks that the user registered on parameters.
        tags: attributes that the user set on parameters, by path.
        statistics: of batch norms, by path.
    """

    module: nn.Module
    factory: Factory | None
    params: Tensors
    buffers: Tensors
    requires_grad: frozenset[str]
    paths: list[str]
    places: Places
    modes: dict[bool, list[Any]]
    param_places: list[Place]
    buffer_places: list[Place]
    aliases: dict[str, str]
    hooks: dict[str, list[Callable[[Tensor], Tensor | None]]]
    tags: dict[str, dict[str, Any]]
    attributes: Attributes
    writes: InPlaceWrites
    statistics: dict[str, Statistic]
    outside: OutsideParameters = attrs.field(factory=OutsideParameters)

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy has another module, in which the places are others.
        return _rebuild, (self.module, self.factory, self.params, self.buffers)

    @property
    def named_params(self) -> NamedParams:
        """The initial parameters, with the other names of tied ones."""
        others: dict[str, list[str]] = {}
        for name, path in self.aliases.items():
            others.setdefault(path, []).append(name)
        return NamedParams(self.params, others)

    def initial(self, seed: int) -> tuple[Tensors, Tensors]:
        """Return copies of the initial parameters and buffers.

        With a factory, values are a function of the seed; a module has the values it had.
        """
        source = self if self.factory is None else functionalize(self.factory, seed)
        if source.params.keys() != self.params.keys():
            raise ModelError(
                "the model factory returned another set of parameters than at the first call: "
                f"{sorted(source.params.keys() ^ self.params.keys())}. A factory must build the "
                "same structure each time."
            )
        return _copies(source.params), _copies(source.buffers)

    def as_parameters(self, params: Tensors, trained: Collection[str]) -> Tensors:
        """Return ``nn.Parameter``s with the memory of tensors, and the attributes that users set.

        Below ``torch.func`` tensors have no memory of their own, and stay plain ones.
        """
        wanted = set(trained)
        if is_below_func():
            return {p: t.detach().requires_grad_() if p in wanted else t for p, t in params.items()}
        made = {path: nn.Parameter(one, path in wanted) for path, one in params.items()}
        for path, attributes in self.tags.items():
            vars(made[path]).update(attributes)
        return made  # type: ignore[return-value]

    @contextmanager
    def bound(self, params: Tensors, buffers: Tensors, training: bool) -> Iterator[nn.Module]:
        """Let the module compute with these tensors, in this mode; afterwards it is as before."""
        values = [*self._in_places({**params, **buffers}), *self.modes[training]]
        self.attributes.enter(training)
        before, failed = self.places.get(), True
        try:
            self.places.put(values)
            yield self.module
            failed = False
        finally:
            self.places.put(before)
            self.attributes.exit(training, failed)

    def _in_places(self, tensors: Tensors) -> list[Tensor]:
        """Return a tensor for each place; a ``KeyError`` tells that they are of another model."""
        if len(tensors) != len(self.params) + len(self.buffers):
            raise KeyError(min(tensors.keys() ^ {*self.params, *self.buffers}))
        return [tensors[path] for path in self.paths]

    def lent(
        self, params: Tensors, buffers: Tensors, training: bool, differentiated: Collection[str]
    ) -> nn.Module:
        """Return a module of its own that computes with these tensors.

        The user's own would not do: a step of the same program, as that of a student whose average
        is the teacher, binds it to other tensors while the module is lent.

        Parameters that a forward writes to, and buffers, are copied; the parameters
        ``differentiated`` are leaves that require gradients.
        """
        own = self.as_parameters(self.writes.owned(params), differentiated)
        return self._made_with({**own, **_copies(buffers)}, training)

    def with_weights(self, params: Tensors, buffers: Tensors) -> nn.Module:
        """Return a module like the user's, in evaluation mode, with copies of these tensors."""
        own = self.as_parameters(_copies(params), self.requires_grad)
        return self._made_with({**own, **_copies(buffers)}, training=False)

    def _made_with(self, tensors: Tensors, training: bool) -> nn.Module:
        self._in_places(tensors)
        with turn():  # a step in another thread binds the module to its own tensors
            module = self._copied(tensors)
        _flags(module).put(self.modes[training])
        return module

    def _copied(self, tensors: Tensors) -> nn.Module:
        """Return another module like this one that has these tensors in all places."""
        # A copy of an object is looked for by id first, so no tensor is copied.
        pairs = zip(self.paths, self.places.get(), strict=False)
        memo = {id(held): tensors[path] for path, held in pairs}
        try:
            module = copy_module(self.module, memo)
        except ModelError:
            if self.factory is None:
                raise
            module = made_by(self.factory, seed=0)
        parts = [*module.modules()]
        held = [*chain(*(one._parameters.values() for one in parts)), *module.buffers()]
        if not set(map(id, tensors.values())) <= set(map(id, held)):
            # It was made by the factory, or by a __deepcopy__ that ignores the memo.
            made = functionalize(lambda: module)
            pairs = zip(made.paths, made.places.get(), strict=False)
            made.places.put([tensors.get(path, held) for path, held in pairs])
        return module

    def current_params(self) -> Tensors:
        """Return the parameters the module holds now."""
        return {path: container[key] for path, container, key in self.param_places}

    def current_buffers(self, bound: Tensors) -> Tensors:
        """Return the buffers the module holds now, detached; see :meth:`held_buffers`.

        One that the forward put instead of the ``bound`` one is copied: it may be anyone's.
        """
        held = self.held_buffers().items()
        return {p: b.detach() if b is bound[p] else b.detach().clone() for p, b in held}

    def held_buffers(self) -> Tensors:
        """Return the buffers of the module; a forward may have replaced some by assignment."""
        found = {path: container.get(key) for path, container, key in self.buffer_places}
        if gone := [path for path, buffer in found.items() if buffer is None]:
            raise ModelError(
                f"the forward removed {gone[:8]}, or set it to None: a buffer in the state must "
                "stay a tensor. Give it an empty one instead: torch.zeros(0)"
            )
        return found


def functionalize(source: nn.Module | Factory, seed: int = 0) -> FunctionalModule:
    """Make a :class:`FunctionalModule` from a module (its present values) or a factory of modules.

    The seed is that under which a factory runs.
    """
    factory = None if isinstance(source, nn.Module) else source
    module = source if isinstance(source, nn.Module) else made_by(source, seed)
    refuse(module)
    plain = plain_paths(module, all_paths(module))
    params: Tensors = {plain[path]: p for path, p in module.named_parameters()}
    buffers = {plain[path]: b for path, b in module.named_buffers()}
    paths = {id(tensor): path for path, tensor in [*params.items(), *buffers.items()]}
    places, flags, owners = tensor_places(module, paths), _flags(module), lists(module, paths)
    first = {place.path: place for place in reversed(places)}
    return FunctionalModule(
        module=module,
        factory=factory,
        params=_initial(params, factory),
        buffers=_initial(buffers, factory),
        requires_grad=frozenset(path for path, p in params.items() if p.requires_grad),
        paths=[place.path for place in places],
        places=Places([p.container for p in places], [p.key for p in places]) + flags + owners,
        modes={mode: values + owners.get() for mode, values in _modes(module, flags).items()},
        param_places=[first[path] for path in params],
        buffer_places=[first[path] for path in buffers],
        aliases=aliases(module, paths),
        hooks={
            plain[path]: list(p._backward_hooks.values())
            for path, p in module.named_parameters()
            if p._backward_hooks
        },
        tags={plain[path]: dict(vars(p)) for path, p in module.named_parameters() if vars(p)},
        attributes=Attributes(module),
        writes=InPlaceWrites.of(module, params),
        statistics=statistics(module, paths),
    )


def _rebuild(
    module: nn.Module, factory: Factory | None, params: Tensors, buffers: Tensors
) -> FunctionalModule:
    """Return what a copy of a module is as a function, with the initial values of the first one."""
    made = functionalize(module)
    return attrs.evolve(made, factory=factory, params=params, buffers=buffers)


def _initial(tensors: Tensors, factory: Factory | None) -> Tensors:
    """Return the values that a module has now; its user may change those of a module later."""
    values = {path: tensor.detach() for path, tensor in tensors.items()}
    return _copies(values) if factory is None else values


def _copies(tensors: Tensors) -> Tensors:
    return {path: tensor.clone() for path, tensor in tensors.items()}


def _flags(module: nn.Module) -> Places:
    """Return the places of all ``training`` flags."""
    # A module that torch.compile wraps has the flag of the one inside.
    own = [vars(one) for one in module.modules() if "training" in vars(one)]
    return Places(own, ["training"] * len(own))


def _modes(module: nn.Module, flags: Places) -> dict[bool, list[Any]]:
    """Return the flags in both modes, as the user's own ``train()`` sets them."""
    before, modes = flags.get(), {}
    for mode in (True, False):
        try:
            module.train(mode)
        except NotImplementedError as error:
            raise ModelError(
                f"this {type(module).__name__} does not change between training and evaluation, as "
                "modules of torch.export do not: its train() cannot be called or copied. Give the "
                "module that was exported"
            ) from error
        modes[mode] = flags.get()
    flags.put(before)
    return modes
