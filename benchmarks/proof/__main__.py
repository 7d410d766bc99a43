"""Run the experiments and print their tables."""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.proof import experiments, power
from benchmarks.proof.contenders import CONTENDERS, Contender
from benchmarks.proof.experiments import FAILED, OTHER, RESUMED, SAME
from benchmarks.proof.tasks import TASKS, Task


def resume(contenders: list[Contender], tasks: list[Task]) -> None:
    """Print a row for each task: what a killed and resumed run ends in."""
    columns: dict[str, list[str]] = {}
    for contender in contenders:
        train = contender.load()
        with tempfile.TemporaryDirectory() as place:
            columns[contender.title] = [
                experiments.resumed(train, task, Path(place) / str(index))
                for index, task in enumerate(tasks)
            ]
        print(f"<!-- {contender.title}: {columns[contender.title]} -->", flush=True)
    heading("killed and resumed", *columns)
    for index, task in enumerate(tasks):
        row(task.name, *(results[index] for results in columns.values()))
    row("in all", *(f"{results.count(SAME)} of {len(tasks)}" for results in columns.values()))


def world(contenders: list[Contender]) -> None:
    """Print a row for each contender: how far two processes end from one."""
    tasks = [Task("plain", parts=2), Task("dropout", dropout=0.5, parts=2)]
    cases = [(task, first) for first in (0, 13) for task in tasks]
    heading("", "two processes", "two, dropout", "one, then two", "one, then two, dropout")
    for contender in contenders:
        cells = ["not with PyTorch"] * len(cases)
        if contender.runs_on_several:
            with tempfile.TemporaryDirectory() as place:
                cells = [
                    experiments.on_two_processes(
                        contender.load(), task, Path(place) / str(at), first
                    )
                    for at, (task, first) in enumerate(cases)
                ]
        row(contender.title, *cells)


def counted(
    title: str,
    experiment: Callable[[Contender, Path, int], Counter[str]],
    outcomes: tuple[str, ...],
    contenders: list[Contender],
    count: int,
) -> None:
    """Print a row for each contender: how often resumption ended in which way."""
    heading(title, *outcomes)
    for contender in contenders:
        with tempfile.TemporaryDirectory() as place:
            counts = experiment(contender, Path(place), count)
        row(contender.title, *(str(counts[outcome]) for outcome in outcomes))


def heading(*titles: str) -> None:
    row(*titles)
    print("|---" * len(titles) + "|")


def row(*cells: str) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.proof")
    names = ["resume", "damage", "kill", "power", "world"]
    parser.add_argument("experiments", nargs="*", default=names, metavar="|".join(names))
    parser.add_argument("--only", nargs="+", default=[""], help="words in contenders' names")
    parser.add_argument("--tasks", nargs="+", default=[""], help="words in names of tasks")
    parser.add_argument("--count", type=int, default=50, help="bits to flip, kills, or cuts")
    options = parser.parse_args()
    torch.set_num_threads(1)
    contenders = [
        one
        for one in CONTENDERS
        if one.is_installed and any(word in one.name for word in options.only)
    ]
    if "resume" in options.experiments:
        resume(contenders, [t for t in TASKS if any(word in t.name for word in options.tasks)])
    if "damage" in options.experiments:
        outcomes = (SAME, FAILED, OTHER)
        counted("one bit flipped", experiments.damaged, outcomes, contenders, options.count)
    if "kill" in options.experiments:
        saving = experiments.killed_while_saving
        counted("killed as it saves", saving, (RESUMED, FAILED), contenders, options.count)
    if "power" in options.experiments:
        counted("power cut", power.power_cuts, power.OUTCOMES, contenders, options.count)
    if "world" in options.experiments:
        world(contenders)


if __name__ == "__main__":
    main()
