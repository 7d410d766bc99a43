"""Say what a call lacks, or what it gives too much, with the names that were probably meant."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from functrain.errors.base import CallError
from functrain.errors.nearest import nearest, plain
from functrain.errors.other_libraries import Alias, aliases

Called = TypeVar("Called", bound=Callable[..., Any])


def explained(called: Called) -> Called:
    """Explain calls that do not fit the signature of a function or class; others pass unchanged.

    Args:
        called: a function, or a class whose ``__init__`` is wrapped in place.

    Example:
        >>> @explained
        ... def fit(data, *, until): ...
        >>> fit([], epochs=3)
        Traceback (most recent call last):
        functrain.errors.CallError: fit() takes no argument 'epochs': write until="3 epochs"...
    """
    if isinstance(called, type):
        # The name of the class, whose __init__ it is.
        called.__init__ = _wrapped(called.__init__, called.__name__, called)  # type: ignore[misc]
        return called
    function: Called = _wrapped(called, called.__name__, called)
    return function


def _wrapped(function: Any, name: str, documented: Any) -> Any:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except TypeError as error:
            # An error of the call itself is raised here; one from within has more frames.
            if error.__traceback__ is None or error.__traceback__.tb_next is not None:
                raise
            found = _problems(inspect.signature(function), args, kwargs, _arguments(documented))
            if not found:
                raise
            raise CallError(f"{name}() {'; '.join(found)}") from None

    return call


def _problems(
    signature: inspect.Signature,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    texts: Mapping[str, str],
) -> list[str]:
    """List what is wrong with the arguments of a call.

    ``texts`` is what the documentation says of each parameter.
    """
    parameters = signature.parameters.values()
    both = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    by_position = [p.name for p in parameters if p.kind is p.POSITIONAL_ONLY] + both
    by_name = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    accepted = [name for name in both + by_name if name != "self"]
    unknown = [name for name in kwargs if name not in accepted]
    found = [_unknown(name, kwargs[name], accepted, texts) for name in unknown]
    given = by_position[: len(args)]
    twice = [name for name in given if name in kwargs]
    found += [_twice(name, args[by_position.index(name)]) for name in twice]
    if len(args) > len(by_position):
        rest = [name for name in accepted if name not in by_position]
        keywords = f", and the keywords {', '.join(rest)}" if rest else ""
        takes = ", ".join(name for name in by_position if name != "self")
        found.append(
            f"takes ({takes}) by position{keywords}; got {_kind(args[len(by_position)])} as one "
            "more: name it"
        )
    suggested = "; ".join(found)
    needed = [
        p.name
        for p in parameters
        if p.default is p.empty and p.name not in given and p.name not in kwargs
        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) and f" {p.name}=" not in suggested
    ]
    return found + [f"needs the argument {name!r}{_text(name, texts)}" for name in needed]


def _unknown(name: str, value: Any, accepted: list[str], texts: Mapping[str, str]) -> str:
    """Return what is wrong with an unknown keyword, and what to write instead of it."""
    takes = f"takes no argument {name!r}"
    key = plain(name)
    for one in accepted:
        if plain(one) == key:
            return f"{takes}: write {Alias(one).written(value)}{_text(one, texts)}"
    known = [alias for alias in aliases() if key in alias.others or key == plain(alias.name)]
    for alias in known:
        if alias.name in accepted:
            return f"{takes}: write {alias.written(value)}{_text(alias.name, texts)}"
    if hint := nearest(name, accepted):
        return f"{takes}{hint}; it takes {', '.join(accepted)}"
    for alias in known:
        if alias.place:
            return f"{takes}: {alias.placed(value)}"
    return f"{takes}; it takes {', '.join(accepted) or 'none'}"


def _twice(name: str, value: Any) -> str:
    if isinstance(value, Iterator):
        return (
            f"takes {name!r} once, and got it by position ({_kind(value)}) and by name. If these "
            "are the parameters of a model, leave them out: the program gives them to its optimizer"
        )
    return (
        f"takes {name!r} once, and got it by position ({_kind(value)}) and by name. If what was "
        f"given by position is something else, put it where it belongs: samples of several columns "
        "are one argument, (x, y)"
    )


def _kind(value: Any) -> str:
    shape = getattr(value, "shape", None)
    of_shape = f" of shape {list(shape)}" if shape is not None else ""
    plain_value = isinstance(value, bool | int | float | str)
    return repr(value) if plain_value else f"a {type(value).__name__}{of_shape}"


def _text(name: str, texts: Mapping[str, str]) -> str:
    return f" ({texts[name]})" if name in texts else ""


def _arguments(documented: Any) -> dict[str, str]:
    """Return the first sentence on each argument in a docstring.

    Example:
        >>> _arguments(explained)["called"]
        'a function, or a class whose __init__ is wrapped in place'
    """
    lines = (inspect.getdoc(documented) or "").splitlines()
    texts: dict[str, str] = {}
    name, inside = "", False
    for line in lines:
        if not line.startswith(" "):
            inside = line in ("Args:", "Attributes:") or (inside and not line)
        elif inside and not line.startswith("     "):
            name, _, texts[name] = (part.strip() for part in line.partition(":"))
        elif inside and name:
            texts[name] += f" {line.strip()}"
    return {key: _plain_text(text.partition(". ")[0]).rstrip(".") for key, text in texts.items()}


def _plain_text(text: str) -> str:
    """Return reStructuredText without its marks."""
    return re.sub(r":\w+:`~?([^`]*)`", r"\1", text).replace("``", "")
