"""Create Optuna samplers and pruners by name."""

from __future__ import annotations

import hashlib
import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from functrain.errors import FunctrainError, SearchError
from functrain.errors.nearest import nearest
from functrain.errors.optional import require
from functrain.errors.validators import is_integer, plain
from functrain.search.pruning import PredictedLossPruner

# One seed determines the whole search; all other samplers get a seed for each trial.
_ONE_SEED = ("GridSampler", "QMCSampler")
Options = Mapping[str, Any]


def make_sampler(options: Options, number: int) -> Any:
    """Return the sampler that draws the parameters of one trial.

    Each trial has its own seed, so a draw depends only on ``seed``, the number of the trial and
    the earlier trials. A resumed search therefore draws the same as an uninterrupted one.
    """
    kinds, own = require("optuna.samplers", "search"), dict(options)
    kind = _class_of(kinds, "Sampler", own.pop("name", "TPESampler"), "sampler", {})
    if "seed" in inspect.signature(kind).parameters:
        seed = plain(own.get("seed", 0))
        if not is_integer(seed):
            raise SearchError(f"sampler.seed: expected an int, got {seed!r}")
        own["seed"] = seed if kind.__name__ in _ONE_SEED else _trial_seed(seed, number)
    return _create(kind, own, "sampler")


def make_pruner(options: Options | None) -> Any:
    """Return a pruner of Optuna by name, or ``PredictedLossPruner``; for ``None`` none prunes."""
    kinds, own = require("optuna.pruners", "search"), dict(options or {"name": "NopPruner"})
    here = {"PredictedLossPruner": PredictedLossPruner}
    kind = _class_of(kinds, "Pruner", own.pop("name", "MedianPruner"), "pruner", here)
    if "wrapped_pruner" in own:  # of PatientPruner
        own["wrapped_pruner"] = make_pruner(own["wrapped_pruner"])
    return _create(kind, own, "pruner")


def _class_of(
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


def _create(kind: Callable[..., Any], options: Options, where: str) -> Any:
    known = inspect.signature(kind).parameters
    for key in options:
        if key not in known:
            raise SearchError(f"{where}.{key}: unknown key{nearest(str(key), known)}")
    with warnings.catch_warnings():
        # Optuna marks many options as experimental; the user has chosen them by name.
        warnings.filterwarnings("ignore", module="functrain|optuna")
        warnings.filterwarnings("ignore", message=".*xperimental.*")
        try:
            return kind(**options)
        except (FunctrainError, TypeError, ValueError, ImportError) as error:
            raise SearchError(f"{where}: {' '.join(str(error).split())}") from error


def _trial_seed(seed: int, number: int) -> int:
    digest = hashlib.sha256(f"{seed} {number}".encode()).digest()
    return int.from_bytes(digest[:4], "big")
