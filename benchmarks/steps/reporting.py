"""Figures as tables: on the console, and in Markdown with a description of the machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.table import Table

from benchmarks.steps.contenders import CONTENDERS
from benchmarks.steps.measuring import Figures, Results

HEADER = (
    "contender",
    "min us",
    "ratio",
    "of medians",
    "peak MB",
    "resident MB",
    "allocated MB",
    "first step s",
    "warm s",
)
FIT_AIM = 25.0  # microseconds
_NOTES = """\
Every contender trains the same model on the same batch with AdamW (learning rate 1e-3, weight decay
0.01) in float32, in its own process; the losses of the first three steps are compared before
anything is timed. Contenders take turns, so other load on the machine affects all of them. With one
thread all are bound to the same core. Ratios are to the plain loop (backward, fused AdamW,
zero_grad), lower is better: those of the minima over all turns, which are steadier, and those of
the medians.

* **peak**: tensors that are alive before a step (weights, moments, kept gradients), plus the growth
  of the process during it. **resident**: the whole process before the step; mostly code, and memory
  that compiling left behind.
* **allocated**: all memory that torch allocates in a step, whether or not it is freed in it.
* **first step**: with an empty cache of compiled code, and in a second process with a filled one.
  Contenders that do not compile have one figure.
"""


def title(results: Results) -> str:
    """Return the title of a work and its threads."""
    threads = "1 thread" if results.threads == 1 else f"{results.threads} threads"
    return f"{results.work.title}, {threads}"


def rows(results: Results) -> list[tuple[str, ...]]:
    """Return a row per contender, in their order; a failed one has its reason."""
    found = []
    for name, contender in CONTENDERS.items():
        if name in results.figures:
            found.append((contender.title, *_cells(results, name, results.figures[name])))
        elif name in results.failures:
            found.append((contender.title, f"failed: {results.failures[name]}"))
    return found


def _cells(results: Results, name: str, figures: Figures) -> tuple[str, ...]:
    return (
        f"{min(figures.seconds) * 1e6:,.0f}",
        f"{results.ratio(name):.2f}",
        f"{results.ratio_of_medians(name):.2f}",
        _megabytes(figures.peak, 2),
        _megabytes(figures.resident, 0),
        _megabytes(figures.allocated, 2),
        _seconds(figures.first),
        _seconds(figures.first_warm),
    )


def console(results: Results) -> Table:
    """Return a table for the console."""
    table = Table(title=title(results), title_justify="left")
    for index, name in enumerate(HEADER):
        table.add_column(name, justify="right" if index else "left", no_wrap=not index)
    failures = []
    for row in rows(results):
        if len(row) == len(HEADER):
            table.add_row(*row)
        else:
            failures.append(" ".join(row))
    table.caption = "\n".join([*remarks(results), *failures]) or None
    table.caption_justify = "left"
    return table


def remarks(results: Results) -> list[str]:
    """Say how much ``fit`` adds to the step it runs, if both were measured."""
    if not {"fit", "donated"} <= results.figures.keys():
        return []
    fit, bare = (min(results.figures[name].seconds) * 1e6 for name in ("fit", "donated"))
    return [
        f"fit adds {fit - bare:.0f} us to a donated step (progress bar, history, log on disk); "
        f"the aim is {FIT_AIM:.0f} us at most."
    ]


def markdown(results: Results) -> str:
    """Return a section with the table of a work."""
    lines = [_line(HEADER), "|".join(["", ":--", *("--:" for _ in HEADER[1:]), ""])]
    lines += [_line(row + ("",) * (len(HEADER) - len(row))) for row in rows(results)]
    return "\n".join([f"## {title(results)}", "", *lines, *_paragraphs(remarks(results))])


def write(
    path: Path,
    everything: Sequence[Results],
    machine: Mapping[str, str],
    command: str,
    plot: str | None = None,
) -> None:
    """Write the report to one file.

    Args:
        path: where.
        everything: works in their order.
        machine: what they were measured on.
        command: what was called.
        plot: the name of a picture beside the file.
    """
    facts = [f"* {name}: {value}" for name, value in machine.items()]
    parts = [
        "# A train step compared with other trainers",
        "\n".join([*facts, f"* Command: `{command}`"]),
        _NOTES.strip(),
        *([f"![Ratios to the plain loop]({plot})"] if plot else []),
        *map(markdown, everything),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n\n".join(parts) + "\n")


def _paragraphs(texts: Sequence[str]) -> list[str]:
    return [line for text in texts for line in ("", text)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _megabytes(size: float | None, digits: int) -> str:
    return "" if size is None else f"{size / 1e6:,.{digits}f}"


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds:.1f}" if seconds >= 10 else f"{seconds:.2f}"
