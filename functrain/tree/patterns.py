"""Patterns over the paths of parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

from torch import Tensor


def matches(
    pattern: str | Sequence[str] | Callable[[str, Tensor], bool], path: str, tensor: Tensor
) -> bool:
    """Return whether a parameter is meant by a pattern.

    Args:
        pattern: a glob over paths (``"*.bias"``), several of them, or a predicate.
        path: the parameter's path.
        tensor: its value.

    Example:
        >>> import torch
        >>> matches(["head.*", "*.bias"], "encoder.0.bias", torch.zeros(3))
        True
        >>> matches(lambda path, tensor: tensor.ndim > 1, "encoder.0.bias", torch.zeros(3))
        False
    """
    if callable(pattern):
        return bool(pattern(path, tensor))
    globs = [pattern] if isinstance(pattern, str) else pattern
    return any(fnmatchcase(path, glob) for glob in globs)
