"""Budgets of a step relative to the plain loop, as ratios of minima; ``--check`` enforces them.

A budget is the ratio measured on a quiet machine with one thread, plus 5 to 10 %: enough for noise,
and less than a lost optimization costs. When a step gets faster, lower its budget; when a change
makes one slower on purpose, raise it and say why here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from benchmarks.steps.contenders import CONTENDERS, PLAIN
from benchmarks.steps.measuring import Extent, Results, Say, record, session
from benchmarks.steps.work import WORKS, Work

# By work, then by contender.
BUDGETS: dict[str, dict[str, float]] = {
    "mlp": {"pure": 1.38, "donated": 1.25, "compiled-donated": 0.60},
    "linears": {"pure": 1.41, "donated": 1.15, "compiled-donated": 0.40},
    "gpt": {"pure": 1.10, "donated": 1.07, "compiled-donated": 0.98},
}


@attrs.frozen
class Offence:
    """A contender over its budget, or one that could not be run at all."""

    work: str
    contender: str
    budget: float
    ratio: float | None = None
    reason: str = ""

    def __str__(self) -> str:
        who = f"{self.work}: {self.contender}"
        if self.ratio is None:
            return f"{who} could not be run: {self.reason}"
        return f"{who} takes {self.ratio:.3f} of the plain loop, its budget is {self.budget:.2f}"


def offences(results: Results, budgets: Mapping[str, float]) -> list[Offence]:
    """List the contenders over their budget, in the order of the budgets."""
    found = []
    for name, budget in budgets.items():
        if name not in results.figures:
            reason = results.failures.get(name, "it was not measured")
            found.append(Offence(results.work.name, name, budget, None, reason))
        elif (ratio := results.ratio(name)) > budget:
            found.append(Offence(results.work.name, name, budget, ratio))
    return found


def check(name: str, extent: Extent, threads: int, say: Say) -> tuple[Results, list[Offence]]:
    """Measure the contenders with a budget, and re-measure over-budget ones in fresh processes.

    The second time they race with the plain loop alone, and that ratio counts. The processes are
    fresh because a process can bias all of its ratios.
    """
    budgets, work = BUDGETS[name], WORKS[name]
    results = _raced(work, (PLAIN.name, *budgets), extent, threads, say)
    found = offences(results, budgets)
    again = _to_repeat(found)
    if again:
        say(f"{work.title}: once more, {', '.join(again)}")
        second = _raced(work, (PLAIN.name, *again), extent, threads, say)
        for each in set(again) & second.figures.keys():
            say(f"{work.title}: {each} takes {second.ratio(each):.2f} in new processes")
        kept = [offence for offence in found if offence.contender not in again]
        found = [*kept, *offences(second, {each: budgets[each] for each in again})]
    return results, found


def _raced(work: Work, names: Sequence[str], extent: Extent, threads: int, say: Say) -> Results:
    with session(work, [CONTENDERS[name] for name in names], extent, threads, say) as racing:
        record(racing, racing.race(extent.turns(work)))
        return racing.results


def _to_repeat(found: Sequence[Offence]) -> list[str]:
    return [offence.contender for offence in found if offence.ratio is not None]
