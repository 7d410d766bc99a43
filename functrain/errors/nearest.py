"""Names in messages: the nearest of the names there are, and patterns over paths."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase

from torch import Tensor


def nearest(name: str, names: Iterable[str]) -> str:
    """Return a hint for a message: the known name that is most similar to an unknown one.

    Args:
        name: what was written.
        names: what could have been meant.

    Returns:
        ``" (did you mean 'x'?)"``, or nothing when no name is near.

    Example:
        >>> nearest("encoder.wieght", ["encoder.weight", "encoder.bias"])
        " (did you mean 'encoder.weight'?)"
        >>> nearest("abc", ["xyz"])
        ''
    """
    found = difflib.get_close_matches(name, list(names), n=1)
    return f" (did you mean {found[0]!r}?)" if found else ""


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


def named(value: object) -> str:
    """Format a value for people: functions and classes by qualified name, the rest by repr.

    Example:
        >>> named(nearest), named(0.5)
        ('functrain.errors.nearest.nearest', '0.5')
    """
    name = getattr(value, "__qualname__", None)
    return repr(value) if name is None else f"{getattr(value, '__module__', '')}.{name}"
