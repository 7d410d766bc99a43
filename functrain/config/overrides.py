"""Overrides on the command line as in Hydra: ``a.b=c``, ``+a.b=c``, ``++a.b=c``, ``~a.b``."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from typing import Any

import attrs
import yaml

from functrain.config.composition import Choices, Composition, merge
from functrain.config.includes import Include, SearchPath
from functrain.config.yaml_file import parse_value, problem
from functrain.errors import ConfigError
from functrain.errors.nearest import nearest

_FORM = re.compile(r"(?P<sign>\+\+|\+|~)?(?P<key>[^=+~]+?)(?P<given>=(?P<text>.*))?", re.DOTALL)


@attrs.frozen
class Override:
    """One override on the command line.

    Attributes:
        sign: ``""`` changes, ``"+"`` adds, ``"++"`` does either, ``"~"`` removes.
        key: a dotted key; numbers in it are indices of lists.
    """

    text: str
    sign: str
    key: str
    value: Any = None
    given: bool = True

    @property
    def group(self) -> str:
        """The key without ``@package``."""
        return self.key.partition("@")[0]

    @property
    def names(self) -> tuple[str, ...] | None:
        """The chosen options if the key is a group; ``None`` if the value is not a name."""
        values = self.value if isinstance(self.value, list) else [self.value]
        if self.value is None:
            return ()
        return tuple(values) if all(isinstance(value, str) for value in values) else None


def override(text: str) -> Override:
    """Parse one override.

    Example:
        >>> override("+program.clip_norm=1e-1")
        Override(text='+program.clip_norm=1e-1', sign='+', key='program.clip_norm', value=0.1, ...)
    """
    match = _FORM.fullmatch(text)
    if match is None or (match["given"] is None and match["sign"] != "~"):
        raise ConfigError(f"override {text!r}: write key=value, such as seed=1, or ~key to remove")
    try:
        value = parse_value(match["text"] or "")
    except yaml.YAMLError as error:
        said = problem(error).partition(": ")[2] or problem(error)
        raise ConfigError(f"override {text!r}: not valid YAML: {said}") from error
    if isinstance(value, dict) and any(":" in str(k) and v is None for k, v in value.items()):
        raise ConfigError(f"override {text!r}: YAML needs a space after each colon")
    # An empty value is empty text, as in Hydra; null is explicit.
    value = "" if match["text"] == "" else value
    key = re.sub(r"\[(\w+)\]", r".\1", match["key"].strip())
    return Override(text, match["sign"] or "", key, value, match["given"] is not None)


def choices(overrides: Sequence[Override], folders: SearchPath) -> tuple[Choices, list[Include]]:
    """Return the choices of files among the overrides, and the files that they add."""
    chosen: dict[str, tuple[str, ...]] = {}
    added: list[Include] = []
    for each in overrides:
        names = each.names
        if names is None or "." in each.group or not folders.options(each.group):
            continue
        if each.sign == "~":
            chosen[each.key] = ()
        elif each.sign == "":
            chosen[each.key] = names
        elif set(names) <= set(folders.options(each.group)):
            package = each.key.partition("@")[2] or None
            added.append(Include(each.group, names, package, selectable=True))
    return chosen, added


def replacements(
    overrides: Sequence[Override], whole: Composition, folders: SearchPath
) -> list[Include]:
    """Return the files that replace a section of the same name as their group.

    Hydra rejects ``optimizer=sgd`` if the file has no ``optimizer`` in its defaults list. Merging
    the chosen file into the section would mix both.
    """
    found = []
    for each in overrides:
        section = each.key not in whole.keys and isinstance(whole.data.get(each.key), dict)
        options = folders.options(each.key) if section and not each.sign else []
        if not options or not each.names:
            continue
        for name in set(each.names) - set(options):
            raise ConfigError(
                f"override {each.text!r}: {each.key} has no file {name!r}{nearest(name, options)}; "
                f"there are {', '.join(options)}"
            )
        found.append(Include(each.key, each.names, selectable=True))
    return found


def values(
    overrides: Sequence[Override], whole: Composition, folders: SearchPath
) -> list[Override]:
    """Return the overrides that are values rather than choices."""
    keys = whole.keys
    left = [each for each in overrides if each.key not in keys or each.names is None]
    for each in left:
        options = folders.options(each.group)
        is_choice = each.names and set(each.names) <= set(options) and not each.sign
        if "@" in each.key or is_choice:
            raise ConfigError(
                f"override {each.text!r}: the defaults list has no {each.key!r}"
                f"{nearest(each.key, keys)}; +{each.key}=... adds one of {', '.join(options)}"
            )
    return left


def applied(data: dict[str, Any], overrides: Sequence[Override]) -> dict[str, Any]:
    """Return a copy of plain data with values changed, added and removed.

    Example:
        >>> applied({"space": {"schedule.lr": {"min": 1}}}, [override("space.schedule.lr.min=0")])
        {'space': {'schedule.lr': {'min': 0}}}
    """
    changed = copy.deepcopy(data)
    for each in overrides:
        _apply(changed, each)
    return changed


def _apply(data: dict[str, Any], given: Override) -> None:
    node: Any = data
    parts, done = given.key.split("."), 0
    while True:
        key, count = _key(node, parts[done:], ".".join(parts[: done + 1]))
        done += count
        if done == len(parts):
            return _put(node, key, given)
        child = node[key] if isinstance(node, list) else node.get(key)
        if isinstance(child, str) and "${" in child:
            message = f"is {child}, so it has no keys to override; override those"
            raise ConfigError(message, ".".join(parts[:done]))
        if not isinstance(child, dict | list):
            if given.sign == "~":
                raise ConfigError("there is nothing to remove", given.key)
            child = node[key] = {}
        node = child


def _put(node: Any, key: Any, given: Override) -> None:
    there = isinstance(node, list) or key in node
    if given.sign == "~":
        if not there:
            raise ConfigError(f"there is nothing to remove{nearest(key, node)}", given.key)
        if given.given and node[key] != given.value:
            message = f"is {node[key]!r}, so ~{given.key}={given.value} removes nothing"
            raise ConfigError(message, given.key)
        del node[key]
        return
    if given.sign == "+" and there:
        message = f"already exists; {given.key}=... changes it, ++{given.key}=... does either"
        raise ConfigError(message, given.key)
    both = there and isinstance(node[key], dict) and isinstance(given.value, dict)
    node[key] = merge(node[key], given.value) if both else given.value


def _key(node: Any, parts: Sequence[str], where: str) -> tuple[Any, int]:
    """Return the next key in a node, and of how many parts it consists: a key may have dots."""
    part = parts[0]
    if isinstance(node, list):
        if part.lstrip("-").isdigit() and -len(node) <= int(part) < len(node):
            return int(part), 1
        raise ConfigError(f"the list has {len(node)} entries, numbered from 0", where)
    for count in range(1, len(parts) + 1):
        if ".".join(parts[:count]) in node:
            return ".".join(parts[:count]), count
    return (int(part) if part.isdigit() and int(part) in node else part), 1
