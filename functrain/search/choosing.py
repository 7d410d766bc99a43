"""Samplers and pruners by their names in Optuna."""

from __future__ import annotations

import hashlib
import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from functrain.errors import FunctrainError, SearchError
from functrain.errors.nearest import nearest
from functrain.errors.optional import require
from functrain.search.pruner import PredictedLossPruner

# Their seed lays out the whole search; others draw from it anew for each trial.
_LAID_OUT = ("GridSampler", "QMCSampler")
Options = Mapping[str, Any]


def sampler(options: Options, number: int) -> Any:
    """The sampler that draws the parameters of one trial.

    With a seed of its own for each trial, what is drawn follows from ``seed``, the trial's number
    and the trials before: a search that was interrupted draws what it would have drawn.

    Args:
        options: ``name``, a class of ``optuna.samplers``; ``seed``; other arguments of the class.
        number: of the trial.

    Raises:
        SearchError: there is no such class, or it does not take such arguments.
    """
    kinds, own = require("optuna.samplers", "search"), dict(options)
    kind = _named(kinds, "Sampler", own.pop("name", "TPESampler"), "sampler", {})
    if "seed" in inspect.signature(kind).parameters:
        seed = own.get("seed", 0)
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise SearchError(f"sampler.seed: expected an int, got {seed!r}")
        own["seed"] = seed if kind.__name__ in _LAID_OUT else _seed(seed, number)
    return _made(kind, own, "sampler")


def pruner(options: Options | None) -> Any:
    """A pruner; ``None`` stands for one that never prunes.

    Args:
        options: ``name``, a class of ``optuna.pruners`` or ``PredictedLossPruner``; arguments.

    Raises:
        SearchError: there is no such class, or it does not take such arguments.
    """
    kinds, own = require("optuna.pruners", "search"), dict(options or {"name": "NopPruner"})
    here = {"PredictedLossPruner": PredictedLossPruner}
    kind = _named(kinds, "Pruner", own.pop("name", "MedianPruner"), "pruner", here)
    if "wrapped_pruner" in own:  # of PatientPruner
        own["wrapped_pruner"] = pruner(own["wrapped_pruner"])
    return _made(kind, own, "pruner")


def _named(
    module: Any, ending: str, name: object, where: str, more: Mapping[str, type]
) -> Callable[..., Any]:
    found = {n: getattr(module, n) for n in dir(module) if n.endswith(ending)}
    known = {**{n: kind for n, kind in found.items() if not n.startswith("Base")}, **more}
    if name not in known:
        raise SearchError(
            f"{where}.name: there is no {name!r}{nearest(str(name), known)}; there are "
            f"{', '.join(sorted(known))}"
        )
    kind: Callable[..., Any] = known[str(name)]
    return kind


def _made(kind: Callable[..., Any], options: Options, where: str) -> Any:
    known = inspect.signature(kind).parameters
    for key in options:
        if key not in known:
            raise SearchError(f"{where}.{key}: unknown key{nearest(str(key), known)}")
    with warnings.catch_warnings():
        # Optuna marks many options as experimental; whoever writes one knows its name.
        warnings.filterwarnings("ignore", module="functrain|optuna")
        warnings.filterwarnings("ignore", message=".*xperimental.*")
        try:
            return kind(**options)
        except (FunctrainError, TypeError, ValueError, ImportError) as error:
            raise SearchError(f"{where}: {' '.join(str(error).split())}") from error


def _seed(seed: int, number: int) -> int:
    digest = hashlib.sha256(f"{seed} {number}".encode()).digest()
    return int.from_bytes(digest[:4], "big")
