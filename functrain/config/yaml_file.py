"""Parse a YAML file to plain data with the line of every key, without its includes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import attrs
import yaml

from functrain.config.locations import join_key
from functrain.errors import ConfigError

_PACKAGE = re.compile(r"\s*#[ \t]*@package[ \t]+(\S+)[ \t]*$", re.MULTILINE)
# YAML 1.1 parses 1e-3 as text, but users mean a number. The expression is from OmegaConf.
_FLOAT = re.compile(
    r"""^(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?
    |[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+
    |\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?
    |[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*
    |[-+]?\.(?:inf|Inf|INF)
    |\.(?:nan|NaN|NAN))$""",
    re.VERBOSE,
)
_TIMESTAMP = "tag:yaml.org,2002:timestamp"
_MERGE = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """YAML as OmegaConf and Hydra parse it: dates stay text, numbers may have an exponent."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError) as error:  # how PyYAML refuses a scalar
            kind, text = node.tag.rpartition(":")[2], str(node.value)[:40]
            message = f"{text!r} cannot be read as {kind}; quote it, if it is text"
            raise yaml.constructor.ConstructorError(None, None, message, node.start_mark) from error


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


@attrs.frozen
class YamlFile:
    """The content of a file.

    Attributes:
        data: the content without ``defaults``.
        lines: ``file:line`` by dotted key.
        defaults: the unparsed list of includes.
        package: the package in its header (``# @package``).
    """

    name: str
    data: dict[Any, Any]
    lines: dict[str, str]
    defaults: list[Any]
    package: str | None = None


def parse_value(text: str) -> Any:
    """Parse one value in YAML.

    Example:
        >>> parse_value("1e-3"), parse_value("[3 steps, null]")
        (0.001, ['3 steps', None])
    """
    return yaml.load(text, _Loader)


def parse_file(text: str, name: str) -> YamlFile:
    """Parse the text of a file with this name."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        lines = {} if node is None else dict(_lines(node, name, "", ()))
        data = None if node is None else loader.construct_document(node)
    except yaml.YAMLError as error:
        raise ConfigError(
            f"{name}: not valid YAML: {problem(error)}{_hint(text, error)}"
        ) from error
    if not isinstance(data, dict | None):
        raise ConfigError(f"{name}: expected a mapping of options at the top")
    data = dict(data or {})
    defaults = data.pop("defaults", None) or []
    if not isinstance(defaults, list):
        raise ConfigError(f"{lines['defaults']}: defaults: expected a list of files")
    header = _PACKAGE.match(text)
    return YamlFile(name, data, lines, defaults, header and header[1])


def problem(error: yaml.YAMLError) -> str:
    """Return the message of a YAML error with its line, as one line of text."""
    mark = getattr(error, "problem_mark", None)
    where = "" if mark is None else f"line {mark.line + 1}: "
    return where + " ".join(str(getattr(error, "problem", None) or error).split())


def _hint(text: str, error: yaml.YAMLError) -> str:
    """Return a hint for a common mistake: an unquoted reference within braces."""
    mark = getattr(error, "problem_mark", None)
    line = "" if mark is None else [*text.splitlines(), ""][mark.line]
    return '; within {...} quote it: "${name}"' if re.search(r"\{.*[^\"']\$\{", line) else ""


def _lines(
    node: yaml.Node, name: str, where: str, above: tuple[yaml.Node, ...]
) -> Iterator[tuple[str, str]]:
    """Yield the keys with their locations; a duplicate key is an error."""
    if node in above:
        raise ConfigError(f"{name}:{_line(node)}: {where}: an alias contains itself")
    keyed = isinstance(node, yaml.MappingNode)
    if keyed:
        children = [(str(key.value), key, child) for key, child in node.value if key.tag != _MERGE]
    elif isinstance(node, yaml.SequenceNode):
        children = [(str(index), child, child) for index, child in enumerate(node.value)]
    else:
        children = []
    seen: dict[str, int] = {}
    for key, beginning, child in children:
        path, line = join_key(where, key), _line(beginning)
        is_text = isinstance(beginning, yaml.ScalarNode)
        if keyed and (not is_text or beginning.tag.endswith((":null", ":bool"))):
            raise ConfigError(f"{name}:{line}: {path}: a key must be text")
        if key in seen:
            raise ConfigError(f"{name}:{line}: {path}: duplicate key, first in line {seen[key]}")
        seen[key] = line
        yield path, f"{name}:{line}"
        yield from _lines(child, name, path, (*above, node))


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
