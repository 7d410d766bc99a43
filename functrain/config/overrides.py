"""Overrides on the command line as in Hydra: ``a.b=c``, ``+a.b=c``, ``++a.b=c``, ``~a.b``."""

from __future__ import annotations

import copy
import re
from collections.abc import Collection, Sequence
from typing import Any

import attrs
import yaml

from functrain.config.composition import Choices, merge
from functrain.config.defaults import Include
from functrain.config.locations import join_key
from functrain.config.search_path import SearchPath
from functrain.config.yaml_file import parse_value, problem
from functrain.errors import ConfigError
from functrain.errors.nearest import nearest

_FORM = re.compile(r"(?P<sign>\+\+|\+|~)?(?P<key>[^=+~]+?)(?P<given>=(?P<text>.*))?", re.DOTALL)


@attrs.frozen
class Override:
    """One override on the command line.

    Attributes:
        text: the original text.
        sign: ``""`` changes, ``"+"`` adds, ``"++"`` does either, ``"~"`` removes.
        key: a dotted key; numbers in it are indices of lists.
        value: plain data.
        given: whether there is a value.
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

    Raises:
        ConfigError: the text has another form, or its value is not valid YAML.

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


def choices(overrides: Sequence[Override], folders: SearchPath) -> Choices:
    """Return the choices of files among the overrides."""
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
    return Choices(chosen, added)


def replacements(
    overrides: Sequence[Override], data: dict[str, Any], keys: Collection[str], folders: SearchPath
) -> list[Include]:
    """Return the files that replace a section of the same name as their group.

    Hydra rejects ``optimizer=sgd`` if the file has no ``optimizer`` in its defaults list. Merging
    the chosen file into the section would mix both.

    Args:
        overrides: all overrides.
        data: the composed configuration.
        keys: groups in the defaults list, which already have a choice.
        folders: the search path.

    Raises:
        ConfigError: the group has no file of that name.
    """
    found = []
    for each in overrides:
        written_out = each.key not in keys and isinstance(data.get(each.key), dict)
        options = folders.options(each.key) if written_out and not each.sign else []
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
    overrides: Sequence[Override], keys: Collection[str], folders: SearchPath
) -> list[Override]:
    """Return the overrides that are values rather than choices.

    Args:
        overrides: all overrides.
        keys: groups that have a choice.
        folders: the search path.

    Raises:
        ConfigError: an override chooses from a group that the configuration does not include.
    """
    left = [each for each in overrides if each.key not in keys or each.names is None]
    for each in left:
        wrong_package = "@" in each.key
        options = folders.options(each.group)
        if wrong_package or (each.names and set(each.names) <= set(options) and not each.sign):
            raise ConfigError(
                f"override {each.text!r}: the defaults list has no {each.key!r}"
                f"{nearest(each.key, keys)}; +{each.key}=... adds one of {', '.join(options)}"
            )
    return left


def applied(data: dict[str, Any], overrides: Sequence[Override]) -> dict[str, Any]:
    """Return a copy of plain data with values changed, added and removed.

    Raises:
        ConfigError: a key to change does not exist, or a key to add does.
    """
    changed = copy.deepcopy(data)
    for each in overrides:
        _apply(changed, each)
    return changed


def _apply(data: dict[str, Any], given: Override) -> None:
    node: Any = data
    *above, last = given.key.split(".")
    for count, part in enumerate(above, 1):
        where = ".".join(above[:count])
        key = _key(node, part, where)
        child = node[key] if isinstance(node, list) else node.get(key)
        if isinstance(child, str) and "${" in child:
            raise ConfigError(f"is {child}, so it has no keys to override; override those", where)
        if not isinstance(child, dict | list):
            if given.sign == "~":
                raise ConfigError("there is nothing to remove", given.key)
            child = node[key] = {}
        node = child
    _put(node, _key(node, last, given.key), given)


def _put(node: Any, key: Any, given: Override) -> None:
    there = isinstance(node, list) or key in node
    if given.sign == "~":
        if not there:
            raise ConfigError(f"there is nothing to remove{nearest(key, node)}", given.key)
        if given.given and node[key] != given.value:
            raise ConfigError(
                f"is {node[key]!r}, so ~{given.key}={given.value} removes nothing", given.key
            )
        del node[key]
        return
    if given.sign == "+" and there:
        raise ConfigError(
            f"already exists; {given.key}=... changes it, ++{given.key}=... does either",
            given.key,
        )
    both = there and isinstance(node[key], dict) and isinstance(given.value, dict)
    node[key] = merge(node[key], given.value) if both else given.value


def _key(node: Any, part: str, where: str) -> Any:
    if not isinstance(node, list):
        return part if part in node or not part.isdigit() or int(part) not in node else int(part)
    if part.lstrip("-").isdigit() and -len(node) <= int(part) < len(node):
        return int(part)
    raise ConfigError(f"the list has {len(node)} entries, numbered from 0", where)


def places(overrides: Sequence[Override]) -> dict[str, str]:
    """Return an empty location for each override, which has no line in a file."""
    return {join_key(each.key): "" for each in overrides}
