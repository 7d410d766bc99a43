"""The metrics that a run depends on: which evaluation can give them, and whether it did."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import attrs

from functrain.errors import MissingMetricError, MissingMetricWarning
from functrain.errors.base import warn
from functrain.errors.nearest import nearest

By: TypeAlias = Literal["early_stop", "checkpoints", "schedule", "restore_best"]

_WORDS: dict[By, str] = {
    "early_stop": "early_stop",
    "checkpoints": "the best checkpoint",
    "schedule": "the learning rate schedule",
    "restore_best": "restore_best",
}
_EPOCH = "epoch"
_USUAL_SETS = ("eval", "evaluation", "val", "valid", "validation", "dev", "test", "train")


@attrs.frozen
class Monitored:
    """A metric that a part of a run depends on.

    Attributes:
        metric: its name; ``None`` where a rule of the user's own does not say it.
        exact: whether ``"loss"`` does not stand for ``"eval/loss"``.
    """

    by: By
    metric: str | None
    exact: bool = False

    @property
    def shown(self) -> str:
        """Return the part that depends on it, in words."""
        return _WORDS[self.by] + (f" by {self.metric!r}" if self.by == "checkpoints" else "")

    @property
    def names(self) -> tuple[str, ...]:
        """Return the full names that it may stand for."""
        if self.metric is None:
            return ()
        return (self.metric,) if self.exact else (self.metric, f"eval/{self.metric}")

    def among(self, names: Iterable[str]) -> bool:
        """Return whether it is one of some names."""
        return not set(self.names).isdisjoint(names)

    def like(self, names: Iterable[str]) -> list[str]:
        """Return alternatives to its name: in full, and short unless it is exact."""
        short = [] if self.exact else [name.removeprefix("eval/") for name in names]
        return [*names, *short]

    def givers(self, prefixes: Mapping[str, str]) -> set[str]:
        """Return the evaluation sets that may give it, and ``"epoch"`` for a mean over an epoch."""
        names = self.names[:1] if self._names_a_set(set(prefixes.values())) else self.names
        found = {
            name
            for prefix, name in prefixes.items()
            for full in names
            if full.startswith(f"{prefix}/") and not full[len(prefix) :].startswith("/ema/")
        }
        epoch = self.metric is not None and self.metric.startswith(f"{_EPOCH}/")
        return found | ({_EPOCH} if epoch else set())

    def evaluated(self, prefixes: Iterable[str]) -> set[str]:
        """Return its full names that only an evaluation or an epoch can give."""
        begin = tuple(f"{prefix}/" for prefix in (_EPOCH, *prefixes))
        return {name for name in self.names if name.startswith(begin)}

    def _names_a_set(self, sets: Iterable[str]) -> bool:
        """Return whether it begins with the name of a set, as "vall/f1" may, not "confusion/f1"."""
        head, slash, _ = (self.metric or "").partition("/")
        meant = difflib.get_close_matches(head, sets, cutoff=0.75)
        return bool(slash) and (bool(meant) or head in _USUAL_SETS)


def check_possible(all_monitored: Sequence[Monitored], prefixes: Mapping[str, str]) -> None:
    """Refuse metrics that no evaluation can give, before anything is trained."""
    if not prefixes:
        _check_nothing(all_monitored)
        return
    for each in all_monitored:
        if each.metric is None or each.givers(prefixes):
            continue
        tails = {each.metric.split("/", cut)[-1] for cut in range(each.metric.count("/") + 1)}
        known = {f"{prefix}/{tail}" for prefix in prefixes for tail in tails - {each.metric}}
        known = known - {each.metric} or {f"{prefix}/{each.metric}" for prefix in prefixes}
        begin = " or ".join(f"{prefix}/..." for prefix in prefixes)
        raise MissingMetricError(
            f"{_WORDS[each.by]} depends on {each.metric!r}, which no evaluation of this run can "
            f"give{nearest(each.metric, known)}: their metrics are called {begin}"
            f"{_of_averages(each.metric, prefixes)}"
        )


def check_given(
    all_monitored: Sequence[Monitored],
    found: Mapping[str, float],
    evaluated: Iterable[str],
    prefixes: Mapping[str, str],
    rows: Sequence[Mapping[str, Any]],
) -> None:
    """Refuse metrics that an evaluation should have given, unless ``rows`` have them already."""
    there = set(evaluated) | {_EPOCH for name in found if name.startswith(f"{_EPOCH}/")}
    for each in all_monitored:
        givers = each.givers(prefixes)
        if each.among(found) or not givers or not givers <= there:
            continue
        if any(each.evaluated(prefixes).intersection(row) for row in reversed(rows)):
            continue
        gave = ", ".join(sorted(found)) or "nothing"
        raise MissingMetricError(
            f"{_WORDS[each.by]} depends on {each.metric!r}, but the evaluation gave only {gave}"
            f"{nearest(str(each.metric), each.like(found))}. Correct the name and call fit again: "
            "with a directory the run resumes from here"
        )


def _check_nothing(all_monitored: Sequence[Monitored]) -> None:
    """Refuse options that need ``eval_data`` when there is none; warn about a best checkpoint."""
    if not all_monitored:
        return
    listed = ", ".join(dict.fromkeys(each.shown for each in all_monitored))
    message = (
        "without eval_data nothing is evaluated, so options that need evaluations have no effect: "
        f"{listed}. Give fit eval_data="
    )
    if any(each.by != "checkpoints" for each in all_monitored):
        raise MissingMetricError(message)
    warn(message, MissingMetricWarning)


def _of_averages(metric: str, prefixes: Mapping[str, str]) -> str:
    averaged = any(prefix.endswith("/ema") for prefix in prefixes)
    if "/ema/" not in f"/{metric}" or averaged:
        return ""
    return ". It keeps no averaged weights: give functrain.program(..., ema=0.999)"
