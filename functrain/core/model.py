"""A module as a function of its tensors, which are put into it for one call.

As by ``torch.func.functional_call``, the module is the user's own, so hooks and objects that it
shares with a loss go on to work. That looks up each tensor by name at each call, which doubles the
forward time of a model of many small layers. Here their places are found once, and binding is one
assignment each. Afterwards the module has the tensors and the modes that it had before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import attrs
from torch import Tensor, nn

from functrain.core import held_parts
from functrain.core.buffers import Statistic, removed, statistics
from functrain.core.in_place_writes import InPlaceWrites
from functrain.core.lent_modules import Factory, checked, copy_module, made_by
from functrain.core.module_attributes import Attributes
from functrain.core.module_tensors import Place, all_paths, lists, plain_paths, tensor_places
from functrain.core.optimizer import NamedParams
from functrain.core.outside_parameters import OutsideParameters
from functrain.core.rng import turn
from functrain.core.state import Tensors
from functrain.errors import ModelError


@attrs.frozen(eq=False, repr=False)
class FunctionalModule:
    """A module without state: its structure, its initial values, and the places of its tensors.

    Attributes:
        module: the user's own, or the one that the factory made.
        factory: makes modules with fresh initial values, or ``None``.
        params: initial parameters by path (ties appear once, under their first name).
        requires_grad: paths that the user's module marks as trainable.
        places: every place in the module that holds a tensor, with its path.
        first_places: for each path, the place where ``nn.Module`` holds the tensor.
        aliases: second names of tied tensors, each with the path it stands for.
        hooks: tensor hooks that the user registered on parameters.
        lists: attributes of submodules that are lists of tensors; a forward may put new lists in
            their place (``nn.LSTM`` does), which would keep a state alive.
        attributes: of the module, which a forward may fill.
        modes: each submodule's ``__dict__`` with its ``training`` flag in train and in eval mode.
        statistics: of batch norms, by path.
        outside: whether a loss was searched for parameters outside of the model.
    """

    module: nn.Module
    factory: Factory | None
    params: Tensors
    buffers: Tensors
    requires_grad: frozenset[str]
    places: list[tuple[str, Place]]
    first_places: dict[str, Place]
    aliases: dict[str, str]
    hooks: dict[str, list[Callable[[Tensor], Tensor | None]]]
    lists: list[tuple[dict[str, Any], str, Any]]
    attributes: Attributes
    modes: list[tuple[dict[str, Any], bool, bool]]
    writes: InPlaceWrites
    statistics: dict[str, Statistic]
    outside: OutsideParameters = attrs.field(factory=OutsideParameters)

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

    def bound(self, params: Tensors, buffers: Tensors, training: bool) -> _Bound:
        """Return a context in which the module computes with these tensors, in this mode."""
        return _Bound(self, params, buffers, training)

    def lent(
        self, params: Tensors, buffers: Tensors, training: bool, differentiated: Iterable[str] = ()
    ) -> nn.Module:
        """Return a module of its own that computes with these tensors.

        The user's own would not do: a step of the same program, as that of a student whose average
        is the teacher, binds it to other tensors while the module is lent.

        Parameters that a forward writes to, and buffers, are copied; the parameters
        ``differentiated`` become leaves that require gradients.
        """
        given = self.writes.owned(params)
        for path in differentiated:
            given[path] = params[path].detach().clone().requires_grad_()
        tensors = {**given, **{path: buffer.clone() for path, buffer in buffers.items()}}
        self.require_paths(tensors)
        with turn():  # a step in another thread binds the module to its own tensors
            module = self._copied(tensors)
        flagged = [one for one in module.modules() if "training" in vars(one)]
        for one, (_, in_training, in_evaluation) in zip(flagged, self.modes, strict=True):
            one.training = in_training if training else in_evaluation
        return module

    def _copied(self, tensors: Tensors) -> nn.Module:
        """Return another module like this one that has these tensors in all places."""
        # A copy of an object is looked for by id first, so no tensor is copied.
        places = {id(held[key]): tensors[path] for path, (held, key) in self.places}
        try:
            module = copy_module(self.module, places)
        except ModelError:
            if self.factory is None:
                raise
            return _with(self.factory, tensors)
        parts = [vars(one) for one in module.modules()]
        held = {
            id(t)
            for one in parts
            for t in (*one["_parameters"].values(), *one["_buffers"].values())
        }
        if all(id(tensor) in held for tensor in tensors.values()):
            return module
        return _with(lambda: module, tensors)  # a __deepcopy__ has passed by the memo

    def current_params(self) -> Tensors:
        """Return the parameters the module holds now."""
        return {path: held[key] for path, (held, key) in self._places(self.params)}

    def current_buffers(self, bound: Tensors) -> Tensors:
        """Return the buffers the module holds now, detached; see :meth:`held_buffers`.

        One that the forward put instead of the ``bound`` one is copied: it may be anyone's.
        """
        held = self.held_buffers().items()
        return {p: b.detach() if b is bound[p] else b.detach().clone() for p, b in held}

    def held_buffers(self) -> Tensors:
        """Return the buffers of the module; a forward may have replaced some by assignment."""
        found = {path: held.get(key) for path, (held, key) in self._places(self.buffers)}
        if gone := [path for path, buffer in found.items() if buffer is None]:
            raise removed(gone)
        return found

    def _places(self, paths: Tensors) -> Iterator[tuple[str, Place]]:
        return zip(paths, map(self.first_places.__getitem__, paths), strict=True)

    def require_paths(self, tensors: Tensors) -> None:
        """Refuse the tensors of another program's state by a ``KeyError``, which is explained."""
        if tensors.keys() != self.first_places.keys():
            raise KeyError(min(tensors.keys() ^ self.first_places.keys()))


class _Bound:
    """Puts tensors into a module on entry; puts back what was there on exit, so it nests."""

    __slots__ = ("model", "modes", "previous", "tensors", "training")

    def __init__(
        self, model: FunctionalModule, params: Tensors, buffers: Tensors, training: bool
    ) -> None:
        self.model = model
        self.tensors = {**params, **buffers}
        self.training = training
        self.previous: list[Tensor] = []
        self.modes: list[bool] = []

    def __enter__(self) -> nn.Module:
        model, tensors = self.model, self.tensors
        model.require_paths(tensors)
        model.attributes.enter(self.training)
        previous = self.previous
        for path, (container, key) in model.places:
            previous.append(container[key])
            container[key] = tensors[path]
        self.modes = [attributes["training"] for attributes, *_ in model.modes]
        for attributes, *flags in model.modes:
            attributes["training"] = flags[0] if self.training else flags[1]
        return model.module

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        model = self.model
        for (_path, (container, key)), tensor in zip(model.places, self.previous, strict=True):
            container[key] = tensor
        for (attributes, *_flags), mode in zip(model.modes, self.modes, strict=True):
            attributes["training"] = mode
        for attributes, key, owner in model.lists:
            attributes[key] = owner
        model.attributes.exit(self.training, failed=kind is not None)


def functionalize(source: nn.Module | Factory, seed: int = 0) -> FunctionalModule:
    """Make a :class:`FunctionalModule` from a module (its present values) or a factory of modules.

    The seed is that under which a factory runs.
    """
    factory = None if isinstance(source, nn.Module) else source
    module = checked(source) if isinstance(source, nn.Module) else made_by(source, seed)
    plain = plain_paths(module, all_paths(module))
    params: Tensors = {plain[path]: p for path, p in module.named_parameters()}
    buffers = {plain[path]: b for path, b in module.named_buffers()}
    paths = {id(tensor): path for path, tensor in [*params.items(), *buffers.items()]}
    found = tensor_places(module, paths)
    held_parts.refuse_tensors(module, paths)
    return FunctionalModule(
        module=module,
        factory=factory,
        params=_initial(params, factory),
        buffers=_initial(buffers, factory),
        requires_grad=frozenset(path for path, p in params.items() if p.requires_grad),
        places=[(path, place) for path, places in found.items() for place in places],
        first_places={path: places[0] for path, places in found.items()},
        aliases=_aliases(module, paths),
        hooks={
            plain[path]: list(p._backward_hooks.values())
            for path, p in module.named_parameters()
            if p._backward_hooks
        },
        lists=lists(module, paths),
        modes=_modes(module),
        attributes=Attributes(module),
        writes=InPlaceWrites.of(module, params),
        statistics=statistics(module, paths),
    )


def _with(factory: Factory, tensors: Tensors) -> nn.Module:
    """Return the module that a factory makes, with other tensors."""
    made = functionalize(factory)
    for path, (container, key) in made.places:
        container[key] = tensors.get(path, container[key])
    return made.module


def _initial(tensors: Tensors, factory: Factory | None) -> Tensors:
    """Return the values that a module has now; its user may change those of a module later."""
    values = {path: tensor.detach() for path, tensor in tensors.items()}
    return _copies(values) if factory is None else values


def _copies(tensors: Tensors) -> Tensors:
    return {path: tensor.clone() for path, tensor in tensors.items()}


def _aliases(module: nn.Module, paths: dict[int, str]) -> dict[str, str]:
    everything = [
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    ]
    plain = plain_paths(module, [name for name, _ in everything])
    names = [(plain[name], paths[id(tensor)]) for name, tensor in everything]
    return {name: path for name, path in names if path != name}


def _without_modes(module: nn.Module) -> ModelError:
    return ModelError(
        f"this {type(module).__name__} does not change between training and evaluation, as modules "
        "of torch.export do not: its train() cannot be called or copied. Give the module that was "
        "exported"
    )


def _modes(module: nn.Module) -> list[tuple[dict[str, Any], bool, bool]]:
    """Return the flag of every submodule in both modes, as the user's own ``train()`` sets it."""
    # A module that torch.compile wraps has the flag of the one inside.
    own = [m for m in module.modules() if "training" in vars(m)]
    before = [m.training for m in own]
    try:
        module.train(False)
    except NotImplementedError as error:
        raise _without_modes(module) from error
    in_evaluation = [m.training for m in own]
    module.train(True)
    in_training = [m.training for m in own]
    for one, mode in zip(own, before, strict=True):
        one.training = mode
    attributes = [vars(m) for m in own]
    return list(zip(attributes, in_training, in_evaluation, strict=True))
