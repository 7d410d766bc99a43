"""Objectives: what trains the runs of trials."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import attrs

from functrain.core.program import Program
from functrain.data import as_source
from functrain.data.description import describe
from functrain.errors import SearchError
from functrain.training.durations import duration
from functrain.training.events import Listener
from functrain.training.fitting import fit
from functrain.training.history import Run
from functrain.training.plan import Evaluations

Params: TypeAlias = dict[str, Any]

# (parameters, seed, run directory, listeners) -> the run that ``ft.fit`` returned
Objective: TypeAlias = Callable[[Params, int, Path, list[Listener]], Run]


@attrs.frozen(eq=False)
class ProgramObjective:
    """An objective for :func:`search` that makes a program of parameters and trains it by ``fit``.

    Unlike a function, it lets a search find out that its data or arguments have changed.

    Attributes:
        make: ``make(params)`` returns the program of a trial.
        fit: arguments of ``fit``: ``data``, ``until``, ``eval_data`` and so on.

    Example:
        >>> import functrain as ft, torch
        >>> from functrain.search import ProgramObjective
        >>> loss = lambda model, batch: model(batch).square().mean()
        >>> def make(params):
        ...     optimizer = ft.optim.SGD(lr=params["lr"])
        ...     return ft.program(lambda: torch.nn.Linear(2, params["width"]), loss, optimizer)
        >>> data = [torch.ones(4, 2)]
        >>> objective = ProgramObjective(make, fit={"data": data, "until": "1 epoch"})
        >>> objective({"lr": 0.1, "width": 3}, seed=0, directory=None, listeners=[]).reason
        'max_epochs'
    """

    make: Callable[[Params], Program]
    fit: Mapping[str, Any]

    def __attrs_post_init__(self) -> None:
        for name in ("seed", "directory"):
            if name in self.fit:
                raise SearchError(f"fit: {name!r} is given by the search; leave it out")

    def __call__(
        self, params: Params, seed: int, directory: Path, listeners: list[Listener]
    ) -> Run:
        """Train one trial."""
        options = dict(self.fit)
        own = options.pop("listeners", None) or []
        return fit(
            self.make(params),
            options.pop("data"),
            seed=seed,
            directory=directory,
            listeners=[*own, *listeners],
            **options,
        )

    def describe(self) -> dict[str, Any]:
        """Return what all trials of a search share: the data, and the arguments of ``fit``."""
        return describe_fit(self.fit)


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
