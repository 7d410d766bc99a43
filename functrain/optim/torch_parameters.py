"""Which parameter of a program each one of a ``torch.optim`` optimizer is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from functrain.core.optimizer import Params
from functrain.core.program import Program
from functrain.errors import ConfigurationError, ParameterMismatchError
from functrain.optim.groups import Groups

_CONTENTS = "expected optimizer.state_dict() of a torch.optim optimizer, {'state', 'param_groups'}"


class Own(NamedTuple):
    """The part of torch's optimizer for one parameter: its tensors, the options of its group."""

    kept: Mapping[str, Any]
    options: Mapping[str, Any]


def by_path(program: Program, params: Params, state_dict: Any) -> dict[str, Own]:
    """Return what there is for each trained parameter."""
    if not isinstance(state_dict, Mapping) or not {"state", "param_groups"} <= state_dict.keys():
        got = list(state_dict)[:8] if isinstance(state_dict, Mapping) else type(state_dict).__name__
        raise ConfigurationError(f"load_torch_state: {_CONTENTS}, got {got}")
    groups, kept = state_dict["param_groups"], state_dict["state"]
    found = {}
    for group, paths in zip(groups, _paths(program, params, groups), strict=True):
        options = {name: value for name, value in group.items() if name != "params"}
        for index, path in zip(group["params"], paths, strict=True):
            found[path] = Own(kept.get(index, {}), options)
    if missing := [f"missing {path!r}" for path in params if path not in found]:
        raise ParameterMismatchError("torch's optimizer has other parameters", missing)
    return {path: found[path] for path in params}


def _paths(program: Program, params: Params, groups: Any) -> list[list[str]]:
    """Return the paths of the parameters of each of torch's groups."""
    model = program.fixed.model
    if all("param_names" in group for group in groups):
        return [[model.aliases.get(n, n) for n in group["param_names"]] for group in groups]
    sizes = [len(group["params"]) for group in groups]
    ours = [[path for path in params if path in part] for part in _parts(program, params)]
    every, trained = list(model.params), list(params)
    options = [[every], [trained], ours]
    for option in options:
        if list(map(len, option)) == sizes:
            return option
    raise ParameterMismatchError(
        "torch's optimizer has other parameters, or other groups, than the program, and their "
        "names are unknown. Make it of model.named_parameters(), or the program of "
        "functrain.optim.groups in the order of its groups",
        [
            f"{sizes} parameters by group in torch",
            f"{[len(part) for part in ours]} by group that the program trains, of {len(every)}",
        ],
    )


def _parts(program: Program, params: Params) -> list[Params]:
    optimizer: Any = program.recipe.optimizer
    if not isinstance(optimizer, Groups):
        return [params]
    parts = optimizer.parts(params, params)
    return [parts[name] for name, _ in optimizer.members if parts[name]]
