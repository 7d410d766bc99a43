"""The record of a run in its checkpoints, by which a repeated call notices what has changed."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import attrs
import torch
from torch import Tensor, nn

from functrain import tree
from functrain.checkpoint.format.changed_in_use import described
from functrain.core import learning_rate
from functrain.core.module_tensors import plain_paths, shown_layers
from functrain.core.program import Program
from functrain.core.protocol import AnyProgram, AnyState
from functrain.core.schedule import Lambda
from functrain.core.state import TrainState
from functrain.data import Source
from functrain.data.description import describe as describe_data
from functrain.optim.averages import declared
from functrain.training.code import describe_code
from functrain.training.one_model import in_fit
from functrain.training.plan import Evaluations, Plan

Record: TypeAlias = dict[str, Any]

# Every early step, and then ever fewer.
_STEPS = [*range(16), *(round(16 * 1.25**n) for n in range(48))]


def record_run(plan: Plan, source: Source) -> Record:
    """Return the record of a program, its data and its code."""
    steps = plan.total_steps(source.length)
    rates = {"rates": dict(_rates(plan.program, steps))}
    return {**describe(plan.program), **rates, **record_inputs(plan, source)}


def record_inputs(plan: Plan, source: Source) -> Record:
    """Return the part of the record that may change as the run reads its data and calls its code.

    Such are lazy samples, logs, counters and caches.
    """
    return {
        "data": describe_data(source),
        "eval_data": dict(_sets(plan.evaluations)),
        "code": describe_code(dict(_roots(plan, source)), _modules(plan.program)),
    }


def without_changing(before: Record, after: Record) -> Record:
    """Return a record with ``None`` for contents that another, made later, has otherwise."""
    return _masked(before, after, lambda own, other: own == other)


def without_unknown(now: Record, saved: Record) -> Record:
    """Return a record with ``None`` for contents that the record of a checkpoint does not know."""
    return _masked(now, saved, lambda _, other: other is not None)


def _masked(record: Record, other: Record, keep: Callable[[Any, Any], bool]) -> Record:
    def mask(own: Record, name: str, theirs: Record | None) -> Record:
        known = keep(own[name], (theirs or own).get(name, own[name]))
        return own if known else {**own, name: None}

    theirs: Record = (other.get("code") or record["code"])["values"]
    values = {
        path: mask({path: text}, path, theirs)[path]
        for path, text in record["code"]["values"].items()
    }
    sets = other.get("eval_data", {})
    return {
        **record,
        "data": mask(record["data"], "contents", other.get("data")),
        "eval_data": {
            name: mask(own, "contents", sets.get(name)) for name, own in record["eval_data"].items()
        },
        "code": {**record["code"], "values": values},
    }


def is_given(program: AnyProgram) -> bool:
    """Return whether modules with values of the user's were given, and no factory."""
    leaves = program.leaves().values()
    return bool(leaves) and all(leaf.fixed.model.factory is None for leaf in leaves)


def _sets(evaluations: Evaluations) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, each in evaluations.sets.items():
        yield name, {**describe_data(each.data), "batches": each.batches}


def _roots(plan: Plan, source: Source) -> Iterator[tuple[str, Any]]:
    """Yield what a run calls, by the names of its arguments."""
    for prefix, leaf in plan.program.leaves().items():
        yield f"{prefix}loss", leaf.recipe.loss
        yield f"{prefix}evaluate", leaf.recipe.evaluate
        yield f"{prefix}factory", leaf.fixed.model.factory
    yield "recipe", plan.program.recipe
    yield "data", source
    for name, each in plan.evaluations.sets.items():
        yield f"eval_data.{name}", each


def _modules(program: AnyProgram) -> dict[str, nn.Module]:
    return {f"{prefix}model": leaf.fixed.model.module for prefix, leaf in program.leaves().items()}


def _rates(program: AnyProgram, steps: int | None) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield the rates of functions of the step, which a recipe has by their names only."""
    for prefix, leaf in program.leaves().items():
        state = learning_rate.init(leaf.schedules)
        each = learning_rate.each_schedule(leaf.schedules, state, f"{prefix}lr")
        for name, schedule, *_ in each:
            if isinstance(schedule, Lambda) and steps is not None:
                yield name, _known(schedule, steps)


def _known(schedule: Lambda, steps: int) -> dict[str, float]:
    """Return the rates up to a step for which the function, such as a table, has none."""
    known: dict[str, float] = {}
    for step in _STEPS:
        if step >= steps:
            break
        try:
            known[str(step)] = schedule(step)
        except Exception:  # of the user's function; a step that needs this rate reports it
            break
    return known


def record_initial(program: AnyProgram, state: AnyState, given: bool) -> Record:
    """Return the record of the state that a run begins with, and of torch's generator.

    By the generator a repeated call tells a module that was seeded otherwise from one that was made
    again without a seed, as in a notebook; the values of a factory do not depend on it.
    """
    parts: list[Any] = []

    def one(_: Program, own: TrainState) -> TrainState:
        parts.append([*own.params.values(), *own.buffers.values()])  # names may change
        return own

    program.map_states(one, state)
    weights = {"weights": tree.digest(parts or getattr(state, "tree", None)), "given": given}
    if not (given or is_given(program)):
        return weights
    generator = tree.digest(torch.get_rng_state())
    return {**weights, "seed": torch.initial_seed(), "generator": generator}


def environment() -> dict[str, Any]:
    """Return the parts of the environment on which bitwise equal resumption depends."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return {
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "device": device,
    }


def describe(program: AnyProgram) -> dict[str, Any]:
    """Return the record that checkpoints keep: recipe, shapes, transformations, environment."""
    leaves = program.leaves()
    one = leaves.get("")
    own = {
        "recipe": program.recipe.describe(),
        "environment": environment(),
        "population": in_fit(program).describe(),
    }
    if one is not None:
        return {**own, **_described(one)}
    each = {prefix.rstrip("."): _described(leaf) for prefix, leaf in leaves.items()}
    # By part, as of one program, and then by program.
    return {**own, **{part: {k: found[part] for k, found in each.items()} for part in _PARTS}}


_PARTS = ("step", "params", "modules", "buffers", "ties", "transient", "averages", "optimizers")


def _described(program: Program) -> dict[str, Any]:
    model = program.fixed.model
    trained = {path: model.params[path] for path in program.fixed.trainable}
    persistent = plain_paths(model.module, list(model.module.state_dict())).values()
    return {
        # Donation is left out: it changes no bit.
        "step": getattr(program.device_step, "description", "eager"),
        "params": {path: list(value.shape) for path, value in model.params.items()},
        "modules": shown_layers(model.module),
        # Forwards may change buffers; these tell whether a program begins with the same ones.
        "buffers": {path: described(value) for path, value in model.buffers.items()},
        # Tensors with several names in a state_dict of the module, or with none.
        "ties": dict(model.aliases),
        "transient": [path for path in model.buffers if path not in persistent],
        # Which weights are evaluated, where those are others than the parameters.
        "averages": _averages(program.recipe.optimizer, trained),
        "optimizers": _optimizers(program),
    }


def _averages(optimizer: Any, params: dict[str, Tensor]) -> list[dict[str, Any]] | None:
    """Return as plain data which weights are evaluated in place of trained parameters."""
    found = declared(optimizer)
    if found is None and any(param.is_meta for param in params.values()):
        return None
    if found is None:
        same = optimizer.eval_params(optimizer.init(params), params)
        return [] if all(same[path] is param for path, param in params.items()) else None
    shares = (None if one.share is None else float(one.share) for one in found)
    return [{**attrs.asdict(one), "share": share} for one, share in zip(found, shares, strict=True)]


def _optimizers(program: Program) -> dict[str, str]:
    """Return the group of each parameter, or that it is trained or frozen."""
    groups = getattr(program.recipe.optimizer, "assignment", None) or {}
    trained = set(program.fixed.trainable)
    return {
        path: f"group {groups[path]}"
        if path in groups
        else "trained"
        if path in trained
        else "frozen"
        for path in program.fixed.model.params
    }
