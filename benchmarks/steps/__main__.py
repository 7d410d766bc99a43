"""A train step of functrain against the plain PyTorch loop and other trainers.

    python -m benchmarks.steps [--quick] [--work NAME ...] [--only NAME ...] [--threads N]
    python -m benchmarks.steps --check
    python -m benchmarks.steps --profile gpu

Without options, measure all works with one thread, the language models with two as well, and write
``benchmarks/results.md`` and ``results.png``. ``--check`` measures functrain and the
plain loop alone, and fails if a step is over its budget (``benchmarks/steps/budgets.py``).
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

from rich.console import Console

from benchmarks.steps import budgets, gpu, machine, plotting, reporting
from benchmarks.steps.contenders import CONTENDERS, PLAIN, Contender
from benchmarks.steps.guard import DifferentWorkError
from benchmarks.steps.measuring import Extent, Results, Say, measure
from benchmarks.steps.work import WORKS

RESULTS = Path(__file__).parents[1] / "results.md"
_TWICE = ("gpt", "gpt12")  # large enough for a second thread
_LONG = ("gpt12",)  # minutes of compiling: not in the short form


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line.

    Returns:
        The exit status: 1 where a budget is exceeded or a contender trains something else.
    """
    options = _options(arguments)
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)  # do not cut tables in a log
    try:
        if options.check:
            return _check(options, console)
        everything = _gpu(options, console) if options.profile else _measured(options, console)
    except DifferentWorkError as error:
        console.print(str(error), style="red", markup=False, soft_wrap=True)
        return 1
    _write(options, everything, console)
    return 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.steps",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--quick", action="store_true", help="few turns, no cold compilation, no memory"
    )
    parser.add_argument("--work", nargs="+", choices=list(WORKS), metavar="NAME")
    parser.add_argument("--only", nargs="+", choices=list(CONTENDERS), metavar="NAME")
    parser.add_argument("--threads", type=int, help="of all contenders; more than 1 binds no core")
    parser.add_argument("--repeats", type=int, help="turns of each contender")
    parser.add_argument("--check", action="store_true", help="hold functrain to its budgets")
    parser.add_argument("--profile", choices=["gpu"], help="the works for an NVIDIA GPU")
    parser.add_argument(
        "--output", type=Path, help="where the report goes; by default only a whole run is written"
    )
    return parser.parse_args(arguments)


def _measured(options: argparse.Namespace, console: Console) -> list[Results]:
    extent = _extent(options)
    contenders = _contenders(options.only, console)
    found = []
    for name, threads in _settings(options):
        results = measure(WORKS[name], contenders, extent, threads, _saying(console))
        console.print(reporting.console(results))
        found.append(results)
    return found


def _extent(options: argparse.Namespace) -> Extent:
    whole = not options.quick
    return Extent(options.repeats, 1.0 if whole else 0.2, cold=whole, memory=whole)


def _saying(console: Console) -> Say:
    return lambda text: console.print(text, style="dim", markup=False, soft_wrap=True)


def _contenders(only: list[str] | None, console: Console) -> list[Contender]:
    """Return the requested contenders that are installed, always with the plain loop."""
    wanted = [each for each in CONTENDERS.values() if not only or each.name in (*only, PLAIN.name)]
    for contender in wanted:
        if missing := contender.missing():
            names = ", ".join(missing)
            console.print(
                f"{contender.title} is skipped: {names} is not installed "
                "(pip install --editable '.[peers]')",
                markup=False,
                soft_wrap=True,
            )
    return [contender for contender in wanted if not contender.missing()]


def _settings(options: argparse.Namespace) -> list[tuple[str, int]]:
    """Return works and threads in the order of the report."""
    skipped = _LONG if options.quick else ()
    names = options.work or [name for name in WORKS if name not in skipped]
    if options.threads:
        return [(name, options.threads) for name in names]
    cores = len(os.sched_getaffinity(0))
    again = [(name, 2) for name in names if name in _TWICE] if cores > 1 else []
    return [*((name, 1) for name in names), *again]


def _check(options: argparse.Namespace, console: Console) -> int:
    extent = Extent(options.repeats, 0.5, cold=False, memory=False)
    found = []
    for name in budgets.BUDGETS:
        if options.work and name not in options.work:
            continue
        results, offences = budgets.check(name, extent, options.threads or 1, _saying(console))
        console.print(reporting.console(results))
        found += offences
    for offence in found:
        console.print(f"over budget: {offence}", style="red", markup=False, soft_wrap=True)
    if not found:
        console.print("all steps are within their budgets")
    return 1 if found else 0


def _gpu(options: argparse.Namespace, console: Console) -> list[Results]:
    import torch

    if not torch.cuda.is_available():
        sys.exit("--profile gpu needs an NVIDIA GPU and a torch built for CUDA; there is none here")
    contenders = _contenders(options.only or list(gpu.CONTENDERS), console)
    extent = _extent(options)
    found = []
    for work in gpu.GPU_WORKS.values():
        results = measure(work, contenders, extent, os.cpu_count() or 1, _saying(console))
        console.print(reporting.console(results))
        if work.tokens:
            for name, figures in results.figures.items():
                console.print(f"{name}: {gpu.utilisation(work, min(figures.seconds))}")
        found.append(results)
    return found


def _write(options: argparse.Namespace, everything: list[Results], console: Console) -> None:
    partial = options.quick or options.work or options.only or options.threads or options.profile
    path = options.output or (None if partial else RESULTS)
    if path is None:
        return
    picture = path.with_suffix(".png")
    command = shlex.join(["python", "-m", "benchmarks.steps", *sys.argv[1:]])
    reporting.write(path, everything, machine.describe(), command, picture.name)
    plotting.draw(everything, picture)
    console.print(f"{path} and {picture.name} are written")


if __name__ == "__main__":
    sys.exit(main())
