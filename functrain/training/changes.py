"""Changes since a run was recorded: a repeated call refuses them, or warns."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from functrain.data.description import differences
from functrain.errors import RecipeChangedWarning, ResumeWarning, RunChangedError
from functrain.errors.base import warn
from functrain.training.code import code_differences
from functrain.training.run_record import Record

_MOST_LINES = 20


def check_unchanged(now: Record, info: Record, path: Path, ended: str | None) -> None:
    """Compare the record of the program and its data with that of the checkpoint.

    Training continues with the present ones, with a warning. But if the run has ended, its result
    would be that of another program or of other data, and another number of parts changes all sums:
    these are errors. Other code may compute the same, so it is a warning in both cases.
    """
    parts = ["recipe", "step"] + ([] if ended else ["environment"])
    # Another version of torch may print the same layers in other words.
    parts += ["population"] if now["population"] else []
    then = info.get("environment") or now["environment"]
    if then.get("torch") == now["environment"]["torch"]:
        parts.append("modules")
    changed = [
        *(each for part in parts for each in _part_changes(info, now, part)),
        # Earlier versions had other names for parameters of wrapped modules.
        *(each for each in _part_changes(info, now, "optimizers") if None not in each),
        *_rate_changes(info.get("rates", {}), now["rates"]),
        *((f"data.{name}", *both) for name, *both in differences(info.get("data"), now["data"])),
        *_evaluation_changes(info.get("eval_data", {}), now["eval_data"]),
    ]
    code = [*code_differences(info.get("code"), now["code"])]
    if not changed and not code:
        return
    named = [f"{name}: {then!r} in the checkpoint, {after!r} now" for name, then, after in changed]
    listed = _listed(named + code)
    if ended and changed:
        raise RunChangedError(
            f"nothing is left to train: the run in {path.parent} has ended ({ended}), and it "
            f"differs from this one:\n{listed}\nChoose another directory for a new run, or "
            "remove that one; undo the changes to get its result; or give a longer until to train "
            "on with the changes"
        )
    if ended:
        warn(
            f"nothing is left to train: the run in {path.parent} has ended ({ended}), and its "
            f"result may be that of other code:\n{listed}\nChoose another directory for a new run",
            RecipeChangedWarning,
        )
        return
    for name, before, after in changed:
        if name == "recipe.parts" and None not in (before, after):
            raise RunChangedError(
                f"the run in {path.parent} has another number of parts, which decides its "
                f"result:\n{listed}\nGive functrain.sharded parts={before} to continue it, on any "
                "number of processes up to that, or choose another directory for a new run"
            )
    warn(
        "the run is continued with something changed; from here on it is not the run that was "
        f"started:\n{listed}",
        RecipeChangedWarning,
    )


def check_initial(now: Record, info: Record, path: Path) -> None:
    """Compare the weights that a run would begin with, with those of the run that it resumes.

    A model that was made again without a seed, as by a notebook cell that runs twice, differs by
    chance: then torch's generator has the same seed and has moved on, and this is a warning.
    """
    before = info.get("initial")
    if before is None or before["weights"] == now["weights"] or before["given"] > now["given"]:
        return
    remedy = (
        "Choose another directory for a run that begins with these, or continue this one by "
        'resume="latest". A factory, functrain.program(lambda: Net(), ...), makes initial weights '
        "a function of the seed"
    )
    if before.get("seed") == now["seed"] and before["generator"] != now["generator"]:
        warn(
            f"the model was made again and begins with other weights than the run in {path.parent} "
            f"did, which is resumed and keeps its own. {remedy}",
            ResumeWarning,
        )
        return
    raise RunChangedError(
        f"the run in {path.parent} began with other initial weights than those of this "
        f"{'state' if now['given'] else 'model'}. {remedy}"
    )


def _listed(lines: list[str]) -> str:
    """Return lines below each other, at most a screen of them."""
    each = [f"  {line}" for line in lines]
    more = [f"  ... and {len(each) - _MOST_LINES} more"] if len(each) > _MOST_LINES else []
    return "\n".join([*each[:_MOST_LINES], *more])


def _part_changes(info: Record, now: Record, part: str) -> Iterator[tuple[str, Any, Any]]:
    return _changes(info.get(part, now[part]), now[part], part)


def _rate_changes(before: Record, now: Record) -> Iterator[tuple[str, Any, Any]]:
    """Yield for each function of the step the first step where its rate differs."""
    for name, rates in now.items():
        then = before.get(name, {})
        steps = (step for step in rates if step in then and rates[step] != then[step])
        for step in islice(steps, 1):
            yield f"{name} at step {step}", then[step], rates[step]


def _evaluation_changes(before: Record, now: Record) -> Iterator[tuple[str, Any, Any]]:
    for set_name, described in now.items():
        then = before.get(set_name)
        for name, *both in differences(then, described):
            yield (f"eval_data.{set_name}.{name}", *both)


def _changes(before: Any, after: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in {**before, **after}:
            yield from _changes(before.get(key), after.get(key), f"{path}.{key}")
    elif before != after:
        yield path, before, after
