"""What a search has written down: what it searches for, and what came of each seed of a trial.

Each file is written wholly or not at all. A seed that stands in its trial's manifest is never run
again; one that does not is, from its newest checkpoint.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import attrs
import orjson

from functrain.checkpoint.storage.files import created, make_directories, sync_directory, write_all
from functrain.errors import RunChangedError, SearchError

TRIAL, SEARCH = "trial.json", "search.json"


@attrs.frozen
class Ended:
    """What came of one seed.

    Attributes:
        value: of the metric; ``None`` where it failed.
        reason: as in ``Run.reason``, or ``pruned``.
        detail: the same in words.
        steps: updates made.
        seconds: time trained.
    """

    value: float | None
    reason: str
    detail: str
    steps: int
    seconds: float


def trial_directory(search: Path, number: int) -> Path:
    """Where a trial is written.

    Example:
        >>> trial_directory(Path("runs/digits"), 3).name
        'trial-0003'
    """
    return search / f"trial-{number:04d}"


def read_trial(directory: Path) -> dict[int, Ended]:
    """What came of the seeds so far; nothing where none has ended.

    Raises:
        SearchError: the manifest is damaged.
    """
    document = _read(directory / TRIAL) or {"seeds": {}}
    return {int(seed): Ended(**found) for seed, found in document["seeds"].items()}


def write_trial(directory: Path, params: dict[str, Any], seeds: dict[int, Ended]) -> None:
    """Write the manifest of a trial."""
    found = {str(seed): attrs.asdict(ended) for seed, ended in seeds.items()}
    _write(directory / TRIAL, {"params": params, "seeds": found})


def settle(directory: Path, description: dict[str, Any]) -> None:
    """Write what is searched for, or check that the search here is for the same.

    Args:
        directory: of the search.
        description: plain data.

    Raises:
        RunChangedError: it is not; the message names what differs.
    """
    before = _read(directory / SEARCH)
    now = orjson.loads(orjson.dumps(description))
    if before is None:
        _write(directory / SEARCH, now)
        return
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
        raise SearchError(f"{path} is damaged: {error}. Remove it to write it anew") from error


def _write(path: Path, document: dict[str, Any]) -> None:
    make_directories(path.parent)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    with created(draft) as descriptor:
        write_all(descriptor, orjson.dumps(document, option=orjson.OPT_INDENT_2))
    draft.rename(path)
    sync_directory(path.parent)
