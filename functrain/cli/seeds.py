"""Several seeds of one configuration: which runs there are, which are done, what they say."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import attrs
import orjson
from rich.table import Table

import functrain as ft
from functrain.cli import run_directory
from functrain.cli.output import plain
from functrain.errors import RunDirectoryError

FILE_NAME = "seeds.json"
_FORMAT = 1
_NOT_DONE = ("interrupted", "nonfinite")


@attrs.frozen
class Manifest:
    """The runs of a directory.

    Attributes:
        directory: of all.
        runs: by seed: directory, how far it was to go, how it ended, last metrics.
    """

    directory: Path
    runs: dict[str, dict[str, Any]] = attrs.field(factory=dict)

    def is_done(self, seed: int, until: Any) -> bool:
        """Whether a seed's run has ended well where it was to, and is still there."""
        run = self.runs.get(str(seed))
        if run is None or not (self.directory / folder(seed)).is_dir():
            return False
        return run["until"] == until and run["reason"] not in _NOT_DONE

    def with_run(self, seed: int, until: Any, run: ft.Run) -> Manifest:
        """The same with what has become of one run."""
        told = {
            "directory": folder(seed),
            "until": until,
            "reason": run.reason,
            "step": run.state.counters.step,
            "metrics": last_metrics(run),
        }
        return attrs.evolve(self, runs={**self.runs, str(seed): told})

    def of(self, seeds: Iterable[int]) -> Manifest:
        """Only the runs of these seeds."""
        names = [str(seed) for seed in seeds]
        return attrs.evolve(self, runs={name: self.runs[name] for name in names})


def folder(seed: int) -> str:
    """Where the run of a seed is, below the directory of all.

    Example:
        >>> folder(3)
        'seed-3'
    """
    return f"seed-{seed}"


def overrides(given: Sequence[str], directory: Path, seed: int) -> list[str]:
    """The overrides that make the run of one seed of a configuration of several.

    Example:
        >>> overrides(["threads=1"], Path("runs/x"), 3)
        ['threads=1', 'seeds=null', 'seed=3', 'directory="runs/x/seed-3"']
    """
    place = json.dumps(str(directory / folder(seed)), ensure_ascii=False)
    return [*given, "seeds=null", f"seed={seed}", f"directory={place}"]


def last_metrics(run: ft.Run) -> dict[str, float]:
    """The last of each metric of an evaluation, and the best of the monitored one."""
    names = run.history.names()
    measured = [name for name in names if "/" in name and not name.startswith("epoch/")]
    taken = measured or [name for name in names if name == "loss"]
    values = {name: float(run.history[name][-1]) for name in taken}
    if run.best["value"] is not None:
        values["best"] = float(run.best["value"])
    return values


def spread(values: Sequence[float]) -> dict[str, float]:
    """Mean, sample standard deviation (over n - 1), least and greatest of finite values.

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


def summary(manifest: Manifest) -> dict[str, dict[str, float]]:
    """The spread of each metric over the runs that ended well."""
    ended = [run["metrics"] for run in manifest.runs.values() if run["reason"] not in _NOT_DONE]
    names = dict.fromkeys(name for metrics in ended for name in metrics)
    # JSON holds what is not finite as text.
    return {name: spread([float(m[name]) for m in ended if name in m]) for name in names}


def table(manifest: Manifest, name: str) -> Table:
    """The spread of each metric for people."""
    seeds = ", ".join(manifest.runs)
    made = Table("metric", "mean ± std", "min", "max", "runs", title=f"{name}: seeds {seeds}")
    made.title_justify = "left"
    for metric, found in summary(manifest).items():
        std = f"{found['std']:.4f}" if found["runs"] > 1 else "-"
        both = f"{found['mean']:.4f} ± {std}"
        made.add_row(metric, both, f"{found['min']:.4f}", f"{found['max']:.4f}", str(found["runs"]))
    for seed, run in manifest.runs.items():
        if run["reason"] in _NOT_DONE:
            made.add_row(f"seed {seed}", f"{run['reason']} at step {run['step']}", "", "", "")
    return made


def read(directory: Path) -> Manifest:
    """The manifest of a directory; empty where there is none.

    Raises:
        RunDirectoryError: it cannot be read.
    """
    path = directory / FILE_NAME
    if not path.exists():
        return Manifest(directory)
    try:
        document = orjson.loads(path.read_bytes())
        if document["format"] != _FORMAT:
            raise RunDirectoryError(f"{path} is of format {document['format']}, not {_FORMAT}")
        return Manifest(directory, document["seeds"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, RunDirectoryError):
            raise
        raise RunDirectoryError(
            f"{path} is damaged ({error}). Remove that file: runs that are done are seen to be so"
        ) from error


def write(manifest: Manifest) -> None:
    """Write it, and the spread of the metrics beside."""
    told = {"format": _FORMAT, "seeds": manifest.runs, "summary": summary(manifest)}
    text = orjson.dumps(plain(told), option=orjson.OPT_INDENT_2)
    run_directory.write(manifest.directory / FILE_NAME, text)
