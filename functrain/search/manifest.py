"""The files of a search: its settings, and the result of each seed of a trial.

Each file is written atomically. A seed with a result in the manifest of its trial never runs
again; any other seed resumes from its newest checkpoint.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import orjson

from functrain.checkpoint.storage.files import replace_file
from functrain.errors import RecipeChangedWarning, RunChangedError, SearchError
from functrain.errors.base import warn
from functrain.training.code import code_differences

TRIAL, SEARCH = "trial.json", "search.json"


@attrs.frozen
class SeedResult:
    """The result of one seed.

    Attributes:
        value: value of the metric; ``None`` if the seed failed.
        reason: as in ``Run.reason``, or ``pruned``.
    """

    value: float | None
    reason: str
    detail: str
    steps: int
    seconds: float


def trial_directory(search: Path, number: int) -> Path:
    """Return the directory of a trial.

    Example:
        >>> trial_directory(Path("runs/digits"), 3).name
        'trial-0003'
    """
    return search / f"trial-{number:04d}"


def read_trial(directory: Path) -> dict[int, SeedResult]:
    """Return the results of the seeds that have ended."""
    document = _read(directory / TRIAL) or {"seeds": {}}
    return {int(seed): SeedResult(**found) for seed, found in document["seeds"].items()}


def write_trial(directory: Path, params: dict[str, Any], seeds: dict[int, SeedResult]) -> None:
    """Write the manifest of a trial."""
    found = {str(seed): attrs.asdict(ended) for seed, ended in seeds.items()}
    _write(directory / TRIAL, {"params": params, "seeds": found})


def read_settings(directory: Path) -> dict[str, Any]:
    """Return the settings of a search, without any if there is none."""
    return _read(directory / SEARCH) or {}


def check_code(directory: Path, code: dict[str, Any]) -> None:
    """Warn where the code of the objective is other than the code of earlier trials."""
    settings = read_settings(directory)
    changed = [*code_differences(settings.get("code"), code)]
    if changed:
        warn(
            f"{directory} has trials of other code, with which the next ones are compared: "
            f"{'; '.join(changed[:4])}. Choose another directory=... for a new search",
            RecipeChangedWarning,
        )
    if changed or "code" not in settings:
        _write(directory / SEARCH, {**settings, "code": code})


def forget_changing(directory: Path, shared: dict[str, Any], code: dict[str, Any]) -> None:
    """Keep no description of what differs once trials have run, such as a log or a counter.

    ``shared`` and ``code`` are the descriptions made again.
    """
    settings = read_settings(directory)
    kept = {**settings, "shared": _equal(settings.get("shared", {}), shared)}
    kept["code"] = {**code, "values": _equal(settings["code"]["values"], code["values"])}
    if kept != settings:
        _write(directory / SEARCH, kept)


def _equal(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    return {key: value if value == now.get(key) else None for key, value in before.items()}


def write_or_check(directory: Path, settings: dict[str, Any]) -> None:
    """Write the settings of a search, or check that those in the directory are the same."""
    before = _read(directory / SEARCH)
    now = orjson.loads(orjson.dumps(settings))
    if before is None:
        _write(directory / SEARCH, now)
        return
    here = now.pop("shared", {})
    before.pop("code", None)
    there = before.pop("shared", here)
    unknown = {key for key in there.keys() & here.keys() if None in (there[key], here[key])}
    before |= {key: value for key, value in there.items() if key not in unknown}
    now |= {key: value for key, value in here.items() if key not in unknown}
    changed = [
        f"{key}: {before.get(key)!r} there, {now.get(key)!r} now"
        for key in {**before, **now}
        if before.get(key) != now.get(key)
    ]
    if changed:
        raise RunChangedError(
            f"{directory} holds another search ({'; '.join(changed)}). Choose another "
            "directory=..., or remove that one. (trials, timeout, sampler and pruner may change.)"
        )


def _read(path: Path) -> Any:
    try:
        return orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except orjson.JSONDecodeError as error:
        raise SearchError(f"{path} is damaged: {error}. Remove it to write it again") from error


def _write(path: Path, document: dict[str, Any]) -> None:
    replace_file(path, orjson.dumps(document, option=orjson.OPT_INDENT_2))
