"""Why ``program.init`` does not take the params it was given, and what to give instead."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor, nn

from functrain.core.state import TrainState
from functrain.errors import ConfigurationError

# Modules around a module, each with the name under which it holds the one inside.
_WRAPPERS = ("module.", "_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")


def refuse(given: Any, known: Collection[str]) -> None:
    """Refuse anything but tensors by name; other values under unknown names pass."""
    expected = "params: expected a dict of tensors by name"
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"{expected}, {_instead(given)}")
    for name in given:
        if not isinstance(name, str):
            raise ConfigurationError(
                f"{expected}, got one with the key {name!r}; "
                "program.init(params=module.state_dict()) is one"
            )
    others = {name: value for name, value in given.items() if not isinstance(value, Tensor)}
    nested = state_dicts(others)
    if nested:
        raise ConfigurationError(
            f"{expected}, got one with dicts or modules in it: {', '.join(map(repr, nested))}. "
            f"Give the weights alone: program.init(params={_best(nested)})"
        )
    for name in others.keys() & set(known):
        raise ConfigurationError(
            f"params[{name!r}]: expected a tensor, got a {type(given[name]).__name__}; "
            "torch.as_tensor makes one of an array or a list"
        )
    meta = [name for name, value in given.items() if isinstance(value, Tensor) and value.is_meta]
    if meta:
        raise ConfigurationError(
            f"params[{meta[0]!r}] has no values: it is on the meta device, as {len(meta)} of "
            f"{len(given)} are. Load them first: module.load_state_dict(values, assign=True)"
        )


def state_dicts(values: Mapping[Any, Any]) -> dict[str, str]:
    """Return which entries of a checkpoint hold weights, each with the code to get them.

    Example:
        >>> import torch
        >>> state_dicts({"model": {"weight": torch.ones(2)}, "epoch": 3})
        {'model': "checkpoint['model']"}
    """
    code = {}
    for name, value in values.items():
        if isinstance(value, nn.Module):
            code[name] = f"checkpoint[{name!r}].state_dict()"
        elif isinstance(value, Mapping) and any(isinstance(v, Tensor) for v in value.values()):
            code[name] = f"checkpoint[{name!r}]"
    return code


def prefix_hint(given: Collection[str], known: Collection[str]) -> str:
    """Say how the names that are given differ from those of the model, where all do alike.

    Example:
        >>> prefix_hint(["module.weight", "module.bias"], ["weight", "bias"])
        "; the names begin with 'module.': take it off first, as with
        torch.nn.modules.utils.consume_prefix_in_state_dict_if_present(params, 'module.')"
        >>> prefix_hint(["weight"], ["weight", "bias"])
        ''
    """
    prefix = _prefix(given, known)
    if prefix:
        return (
            f"; the names begin with {prefix!r}: take it off first, as with "
            f"torch.nn.modules.utils.consume_prefix_in_state_dict_if_present(params, {prefix!r})"
        )
    prefix = _prefix(known, given)
    if prefix:
        renamed = f"{{{prefix!r} + name: value for name, value in params.items()}}"
        return f"; the model's names begin with {prefix!r}: put it before those given: {renamed}"
    for wrapper in _WRAPPERS:
        names = {name.replace(wrapper, "") for name in given}
        if names != set(given) and names >= set(known):
            renamed = f"{{name.replace({wrapper!r}, ''): value for name, value in params.items()}}"
            return f"; {wrapper!r} is in the names: take it out first: {renamed}"
    return ""


def _prefix(longer: Collection[str], shorter: Collection[str]) -> str:
    """Return the prefix by which most names of one side become names of the other."""
    names, counts = set(shorter), Counter[str]()
    for name in longer:
        ends = [0, *(index + 1 for index, letter in enumerate(name) if letter == ".")]
        counts[next((name[:end] for end in ends if name[end:] in names), "")] += 1
    prefix, count = counts.most_common(1)[0] if counts else ("", 0)
    return prefix if 2 * count > len(longer) else ""


def _instead(given: object) -> str:
    if isinstance(given, nn.Module):
        return "got a module. Give its values: program.init(params=module.state_dict())"
    if isinstance(given, TrainState):
        return (
            "got a TrainState. Give its weights, with the program that made it as one: "
            "with one.evaluating(state) as model: program.init(params=model.state_dict())"
        )
    return f"got a {type(given).__name__}; program.init(params=module.state_dict()) is one"


def _best(nested: Mapping[str, str]) -> str:
    """Return the code for the weights; a state has its buffers beside the parameters."""
    if nested.keys() >= {"params", "buffers"}:
        return "{**checkpoint['params'], **checkpoint['buffers']}"
    likely = ("model", "state_dict", "model_state_dict", "params", "module", "net")
    name = next((name for name in likely if name in nested), next(iter(nested)))
    return nested[name]
