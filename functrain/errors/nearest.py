"""Names in messages: the nearest of the known names, and the full name of a value."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping


def nearest(name: str, names: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the most similar name, or nothing when no name is near.

    Example:
        >>> nearest("encoder.wieght", ["encoder.weight", "encoder.bias"])
        " (did you mean 'encoder.weight'?)"
        >>> nearest("abc", ["xyz"])
        ''
    """
    known = list(names)
    alike = [each for each in known if plain(each) == plain(name)]
    found = alike or difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {found[0]!r}?)" if found else ""


def plain(name: str) -> str:
    """Return a name without the spelling in which libraries differ.

    Example:
        >>> plain("clip_Norm") == plain("clipnorm")
        True
    """
    return name.replace("_", "").casefold()


def unknown_attribute(
    owner: str, name: str, names: Iterable[str], elsewhere: Mapping[str, str]
) -> AttributeError:
    """Return the error for an attribute that an object or a module does not have.

    ``elsewhere`` says what does here what names known from other libraries do there.

    Example:
        >>> unknown_attribute("a state", "step", ["counters"], {"step": "state.counters.step"})
        AttributeError("a state has no attribute 'step': use state.counters.step")
    """
    hint = f": use {elsewhere[name]}" if name in elsewhere else nearest(name, names)
    return AttributeError(f"{owner} has no attribute {name!r}{hint}")


def named(value: object) -> str:
    """Format a value for people: functions and classes by qualified name, the rest by repr.

    Example:
        >>> named(nearest), named(0.5)
        ('functrain.errors.nearest.nearest', '0.5')
    """
    name = getattr(value, "__qualname__", None)
    return repr(value) if name is None else f"{getattr(value, '__module__', '')}.{name}"
