"""Print times as tables of ratios, and whether the aims are met."""

from __future__ import annotations

import importlib.util
import statistics
from collections.abc import Sequence
from pathlib import Path

import attrs
import torch

from benchmarks.checkpoints.contenders import FUNCTRAIN_LOAD, Contender
from benchmarks.checkpoints.measuring import Times
from benchmarks.checkpoints.yardsticks import DD, MEMCPY
from benchmarks.steps.machine import describe

_PACKAGES = ("functrain", "torch", "safetensors", "orbax-checkpoint", "numpy", "xxhash")


@attrs.frozen
class Aim:
    """An aim, the figure found, and whether it meets the aim."""

    text: str
    found: str
    met: bool


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a Markdown table: the first column aligned left, the others right."""
    widths = [max(len(row[index]) for row in (header, *rows)) for index in range(len(header))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]

    def line(cells: Sequence[str]) -> str:
        first = cells[0].ljust(widths[0])
        others = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
        return f"| {' | '.join((first, *others))} |"

    return "\n".join(map(line, (header, rule, *rows)))


def saves(contenders: Sequence[Contender], times: Times) -> str:
    """Format blocking and total times of saves, with ratios to a plain write of the bytes."""
    least, middle = min(times.saved[DD]), statistics.median(times.saved[DD])
    high = _high(times.saved[DD])
    header = ("saving (ms)", "durable", "blocking p50", high, "saved p50", high, "min")
    rows = []
    for contender in contenders:
        if contender.saving is None:
            continue
        blocking, saved = times.blocking[contender.name], times.saved[contender.name]
        ratios = _ratio(statistics.median(saved), middle), _ratio(min(saved), least)
        durable = "yes" if contender.durable else "not durable"
        cells = *_middle_and_high(blocking), *_middle_and_high(saved), _ms(min(saved))
        rows.append((contender.name, durable, *cells, *ratios))
    return table((*header, "p50 / dd", "min / dd"), rows)


def loads(times: Times) -> str:
    """Format hot and cold loads, with ratios to a copy of the bytes into fresh memory."""
    least, middle = min(times.hot[MEMCPY]), statistics.median(times.hot[MEMCPY])
    high, high_cold = _high(times.hot[MEMCPY]), _high(times.cold[FUNCTRAIN_LOAD])
    header = ("loading (ms)", "hot p50", high, "min", "cold p50", high_cold)
    rows = []
    for name, hot in times.hot.items():
        ratios = _ratio(statistics.median(hot), middle), _ratio(min(hot), least)
        cold = _middle_and_high(times.cold[name]) if name in times.cold else ("", "")
        rows.append((name, *_middle_and_high(hot), _ms(min(hot)), *cold, *ratios))
    return table((*header, "p50 / memcpy", "min / memcpy"), rows)


def steps(found: dict[str, tuple[list[float], list[float]]]) -> str:
    """Format the times of steps, alone and during a save."""
    high = _high(next(iter(found.values()))[1])
    header = ("a step while saving (ms)", "alone p50", "during p50", "ratio", f"during {high}")
    rows = [
        (
            name,
            _ms(statistics.median(alone)),
            _ms(statistics.median(during)),
            _ratio(statistics.median(during), statistics.median(alone)),
            _ms(_tail(during)),
        )
        for name, (alone, during) in found.items()
    ]
    return table(header, rows)


def aims(contenders: Sequence[Contender], found: dict[str, Times]) -> str:
    """List the aims for each shape of tree, by medians."""
    rows: list[tuple[str, ...]] = []
    for tree, times in found.items():
        # Only the large leaves, which are first, have an aim for blocking time.
        for aim in [*_aims(contenders, times), *([] if rows else [_blocking(times)])]:
            rows.append((aim.text, tree, aim.found, "met" if aim.met else "NOT MET"))
    return table(("aim", "tree", "found", ""), rows)


def _aims(contenders: Sequence[Contender], times: Times) -> list[Aim]:
    saved = {name: statistics.median(values) for name, values in times.saved.items()}
    peers = [each.name for each in contenders if each.peer and each.durable]
    best = min(peers, key=saved.__getitem__)
    write = saved["functrain"] / saved[DD]
    load = statistics.median(times.hot[FUNCTRAIN_LOAD]) / statistics.median(times.hot[MEMCPY])
    ahead = saved["functrain"] / saved[best]
    return [
        Aim("durable save at most 1.15 of dd", f"{write:.2f}", write <= 1.15),
        Aim("verified hot load at most 2.0 of memcpy", f"{load:.2f}", load <= 2.0),
        Aim("faster than every durable peer", f"{ahead:.2f} of {best}", ahead < 1.0),
    ]


def _blocking(times: Times) -> Aim:
    blocking = statistics.median(times.blocking["functrain, background"])
    return Aim("background save blocks under 2 ms", f"{blocking * 1e3:.2f} ms", blocking < 2e-3)


def machine(directory: Path) -> str:
    """Describe the machine and the versions."""
    facts = describe(_PACKAGES)
    threads = f"{torch.get_num_threads()} torch thread(s)"
    missing = "" if importlib.util.find_spec("orbax") else "; Orbax is not installed: skipped"
    return (
        f"{facts['Date']}, {facts['Processor']}, {facts['Memory']}, {_file_system(directory)}, "
        f"{facts['System']}, {threads}; {facts['Versions']}{missing}"
    )


def _file_system(directory: Path) -> str:
    """Return the type of the file system of a directory, by its longest mount point."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    above = [mount for mount in mounts if directory.resolve().is_relative_to(mount[1])]
    return max(above, key=lambda mount: len(mount[1]))[2] if above else "unknown file system"


def _high(values: Sequence[float]) -> str:
    """Name the upper end; few repeats have no 99th percentile."""
    return "p99" if len(values) >= 100 else f"max of {len(values)}"


def _tail(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=100)[98] if len(values) >= 100 else max(values)


def _middle_and_high(values: Sequence[float]) -> tuple[str, str]:
    return _ms(statistics.median(values)), _ms(_tail(values))


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.2f}" if seconds < 0.01 else f"{seconds * 1e3:.1f}"


def _ratio(value: float, base: float) -> str:
    return f"{value / base:.2f}"
