"""Names in messages: the nearest of the known names, and the full name of a value."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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
    known = list(names)
    alike = [each for each in known if _plain(each) == _plain(name)]
    found = alike or difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {found[0]!r}?)" if found else ""


def _plain(name: str) -> str:
    return name.replace("_", "").casefold()


def named(value: object) -> str:
    """Format a value for people: functions and classes by qualified name, the rest by repr.

    Example:
        >>> named(nearest), named(0.5)
        ('functrain.errors.nearest.nearest', '0.5')
    """
    name = getattr(value, "__qualname__", None)
    return repr(value) if name is None else f"{getattr(value, '__module__', '')}.{name}"
