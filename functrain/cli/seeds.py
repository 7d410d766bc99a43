"""Several seeds of one configuration: their runs, and a summary of the metrics."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console

import functrain as ft
from functrain.checkpoint.storage.files import replace_file
from functrain.cli import output
from functrain.errors import RunDirectoryError
from functrain.view.plain_text import number

FILE_NAME = "seeds.json"
_FORMAT = 1
_NOT_DONE = ("interrupted", "nonfinite")


# By seed: directory, limit, reason for the end, last metrics.
Results = dict[str, dict[str, Any]]


def is_done(directory: Path, results: Results, seed: int, until: Any) -> bool:
    """Return whether the run of a seed exists and has reached its limit."""
    run = results.get(str(seed))
    if run is None or not (directory / folder(seed)).is_dir():
        return False
    return run["until"] == until and run["reason"] not in _NOT_DONE


def is_known(results: Results, seed: int, run: ft.Run) -> bool:
    """Return whether the result of a run is known: this call has trained nothing."""
    known = results.get(str(seed), {"step": None})["step"]
    return run.new_steps == 0 and known == run.state.counters.step


def result_of(seed: int, until: Any, run: ft.Run) -> dict[str, Any]:
    """Return the result of a run."""
    return {
        "directory": folder(seed),
        "until": until,
        "reason": run.reason,
        "step": run.state.counters.step,
        "metrics": last_metrics(run),
    }


def folder(seed: int) -> str:
    """Return the name of the folder of a seed.

    Example:
        >>> folder(3)
        'seed-3'
    """
    return f"seed-{seed}"


def overrides(given: Sequence[str], directory: Path, seed: int) -> list[str]:
    """Return the overrides for the run of one of several seeds.

    Example:
        >>> overrides(["threads=1"], Path("runs/x"), 3)
        ['threads=1', 'seeds=null', 'seed=3', 'directory="runs/x/seed-3"']
    """
    place = json.dumps(str(directory / folder(seed)), ensure_ascii=False)
    return [*given, "seeds=null", f"seed={seed}", f"directory={place}"]


def last_metrics(run: ft.Run) -> dict[str, float]:
    """Return the last value of each evaluation metric, and the best of the monitored one."""
    chosen = measured(run.history) or [name for name in run.history.names() if name == "loss"]
    values = {name: run.history[name][-1] for name in chosen}
    if run.best["value"] is not None:
        values["best"] = float(run.best["value"])
    return values


def measured(history: ft.History) -> list[str]:
    """Return the metrics of evaluations, and of listeners that name them alike."""
    names = history.names()
    return [name for name in names if "/" in name and not name.startswith("epoch/")]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return mean, sample standard deviation (n - 1), minimum and maximum of finite values.

    Example:
        >>> spread([1.0, 2.0, 3.0])
        {'mean': 2.0, 'std': 1.0, 'min': 1.0, 'max': 3.0, 'runs': 3}
    """
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return {"mean": math.nan, "std": math.nan, "min": math.nan, "max": math.nan, "runs": 0}
    std = statistics.stdev(finite) if len(finite) > 1 else math.nan
    ends = {"min": min(finite), "max": max(finite), "runs": len(finite)}
    return {"mean": statistics.fmean(finite), "std": std, **ends}


def summary(results: Results) -> dict[str, dict[str, float]]:
    """Return the spread of each metric over the runs that succeeded."""
    ended = [run["metrics"] for run in results.values() if run["reason"] not in _NOT_DONE]
    names = dict.fromkeys(name for metrics in ended for name in metrics)
    # JSON stores nonfinite numbers as text.
    return {name: spread([float(m[name]) for m in ended if name in m]) for name in names}


def print_spread(results: Results, name: str, console: Console) -> None:
    """Print a table of the spread of each metric."""
    output.print_lines(console, f"{name}: seeds {', '.join(results)}")
    rows = list[tuple[object, ...]]()
    for metric, found in summary(results).items():
        mean, std, least, most = (number(found[key]) for key in ("mean", "std", "min", "max"))
        std = std if found["runs"] > 1 else "-"
        rows.append((metric, f"{mean} ± {std}", least, most, found["runs"]))
    for seed, run in results.items():
        if run["reason"] in _NOT_DONE:
            rows.append((f"seed {seed}", f"{run['reason']} at step {run['step']}"))
    heads, spare = ("metric", "mean ± std", "min", "max", "runs"), ("runs", "max", "min")
    output.print_table(console, heads, rows, right=("runs",), folded=("metric",), spare=spare)


def read(directory: Path) -> Results:
    """Read the results in a directory; none if there is no file of them."""
    path = directory / FILE_NAME
    if not path.exists():
        return {}
    try:
        document = orjson.loads(path.read_bytes())
        version, results = document["format"], dict(document["seeds"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunDirectoryError(
            f"{path} is damaged ({error}). Remove it; finished runs are still recognized"
        ) from error
    if version != _FORMAT:
        raise RunDirectoryError(f"{path} is of format {version}, not {_FORMAT}")
    return results


def write(directory: Path, results: Results) -> None:
    """Write the results, and the spread of the metrics."""
    document = {"format": _FORMAT, "seeds": results, "summary": summary(results)}
    text = orjson.dumps(output.plain(document), option=orjson.OPT_INDENT_2)
    replace_file(directory / FILE_NAME, text)
