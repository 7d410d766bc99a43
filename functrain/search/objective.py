"""Objectives: what trains the runs of trials, each alone or several as one population."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import attrs

from functrain.core.program import Program
from functrain.data import as_source
from functrain.data.description import describe
from functrain.errors import SearchError
from functrain.populations.construct import population as populate
from functrain.training.durations import duration
from functrain.training.events import Listener
from functrain.training.fitting import fit
from functrain.training.history import Run
from functrain.training.plan import Evaluations

Params: TypeAlias = dict[str, Any]

# (parameters, seed, run directory, listeners) -> the run that ``ft.fit`` returned
Objective: TypeAlias = Callable[[Params, int, Path, list[Listener]], Run]


class PopulationObjective(Protocol):
    """An objective that can train several trials as one population."""

    def __call__(
        self,
        params: Params,
        seed: int,
        directory: Path,
        listeners: list[Listener],
        population: Mapping[str, Any] | None = None,
    ) -> Run:
        """Train one trial, or a population with the parameters of its first trial.

        ``seed`` is of every member; listeners that are rules too early-stop members; ``population``
        has ``hyperparameters`` and ``seeds`` of ``ft.population``.
        """
        ...

    def key(self, params: Params) -> Hashable:
        """Return what must be equal in trials that train together."""
        ...

    def program(self, params: Params) -> Program:
        """Return the eager program of a trial."""
        ...


@attrs.frozen(eq=False)
class ProgramObjective:
    """An objective for :func:`search` that makes a program of parameters and trains it by ``fit``.

    With ``search(..., population=8)``, trials that differ in ``members`` only train as one
    population.

    Attributes:
        make: ``make(params)`` returns the program of a trial, an eager one.
        members: the parameters that change nothing but hyperparameters of the program which a
            member of a population may have of its own: learning rate, weight decay, betas, clipping
            and the like. The loss and the model must not depend on them.
        fit: arguments of ``fit``: ``data``, ``until``, ``eval_data`` and so on.
        transform: applied to the program or the population, such as ``ft.compiled``.

    Example:
        >>> import functrain as ft, torch
        >>> from functrain.search import ProgramObjective
        >>> loss = lambda model, batch: model(batch).square().mean()
        >>> def make(params):
        ...     optimizer = ft.optim.SGD(lr=params["lr"])
        ...     return ft.program(lambda: torch.nn.Linear(2, params["width"]), loss, optimizer)
        >>> data = [torch.ones(4, 2)]
        >>> objective = ProgramObjective(make, ["lr"], fit={"data": data, "until": "1 epoch"})
        >>> objective({"lr": 0.1, "width": 3}, seed=0, directory=None, listeners=[]).reason
        'max_epochs'
    """

    make: Callable[[Params], Program]
    members: Sequence[str]
    fit: Mapping[str, Any]
    transform: Callable[[Program], Program] = lambda program: program

    def __attrs_post_init__(self) -> None:
        if isinstance(self.members, str):
            raise SearchError(
                f"members: expected a list of names of parameters, got {self.members!r}"
            )
        for name in ("seed", "directory"):
            if name in self.fit:
                raise SearchError(f"fit: {name!r} is given by the search; leave it out")

    def __call__(
        self,
        params: Params,
        seed: int,
        directory: Path,
        listeners: list[Listener],
        population: Mapping[str, Any] | None = None,
    ) -> Run:
        """Train one trial, or a population; see :class:`PopulationObjective`."""
        program = self.make(params)
        if population is not None:
            program = populate(program, **population)
        options = dict(self.fit)
        own = options.pop("listeners", None) or []
        if options.get("eval_data") is not None:
            options["early_stop"] = with_rules(options.get("early_stop"), listeners)
        return fit(
            self.transform(program),
            options.pop("data"),
            seed=seed,
            directory=directory,
            listeners=[*own, *listeners],
            **options,
        )

    def describe(self) -> dict[str, Any]:
        """Return what all trials of a search share: the data, and the arguments of ``fit``."""
        return describe_fit(self.fit)

    def key(self, params: Params) -> Hashable:
        """Return the parameters that must be equal in one population."""
        return repr([(name, params[name]) for name in sorted(params) if name not in self.members])

    def program(self, params: Params) -> Program:
        """Return the program of a trial."""
        return self.make(params)


# Arguments of ``fit`` that change no result, or have a description of their own.
_NOT_DESCRIBED = ("data", "eval_data", "listeners", "progress", "save_every")


def describe_fit(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the data and the arguments of ``fit`` as plain data, as far as they have a text.

    Example:
        >>> described = describe_fit({"data": [1, 2], "until": "2 epochs"})
        >>> described["data.batches_in_an_epoch"], described["until"]
        (2, '2 epochs')
    """
    sets = Evaluations.of(options.get("eval_data"), duration("1 epoch")).sets
    sources = {"data": as_source(options["data"])} if "data" in options else {}
    sources |= {f"eval_data.{name}": each.data for name, each in sets.items()}
    data = [(at, describe(source)) for at, source in sources.items()]
    given = {k: v for k, v in options.items() if k not in _NOT_DESCRIBED and v is not None}
    return {
        **{f"{at}.{key}": value for at, found in data for key, value in found.items()},
        **{name: str(value) for name, value in given.items() if " at 0x" not in str(value)},
    }


def with_rules(given: Any, listeners: list[Listener]) -> Any:
    """Return the early-stopping rules of a run with those among the listeners of a search."""
    rules = [each for each in listeners if hasattr(each, "observe")]
    own = given if isinstance(given, list | tuple) else [] if given is None else [given]
    return [*own, *rules] if rules else given
