"""``functrain show``: print the tree of a checkpoint with dtypes, shapes, sizes and values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import attrs
from rich.console import Console
from rich.text import Text

from functrain.checkpoint import verify
from functrain.checkpoint.format.dtypes import BY_NAME
from functrain.checkpoint.outline import Branch, Entry, Scalar, TensorLeaf, outline, read_tensor
from functrain.cli import output
from functrain.cli.checkpoint_argument import ChosenCheckpoint
from functrain.errors import ConfigurationError
from functrain.plotting.metric_names import match_names
from functrain.tree import Path, path_string
from functrain.tree.elements import Statistics, is_opaque, statistics
from functrain.tree.printing import byte_size, tensor_text
from functrain.view import plain_text


def show(
    target: ChosenCheckpoint,
    console: Console,
    json: bool,
    only: Sequence[str] = (),
    stats: bool = False,
) -> None:
    """Print a checkpoint."""
    if stats:
        verify(target.path)  # report any damage before printing numbers
    entries = _chosen(list(outline(target.manifest)), only)
    if isinstance(entries[0], Branch) and not entries[0].path:
        entries = entries[1:] if len(entries) > 1 and not json else entries
    rows = [_read(target, entry, stats) for entry in entries]
    if json:
        output.print_json(_document(target, rows))
        return
    output.print_lines(console, *_header(target))
    print_tree(rows, stats, console)


def _chosen(entries: list[Entry], only: Sequence[str]) -> list[Entry]:
    if not only:
        return entries
    leaves = [each for each in entries if not (isinstance(each, Branch) and each.size)]
    names = {path_string(entry.path) for entry in leaves}
    chosen = set().union(*(match_names(names, pattern) for pattern in only))
    wanted = [entry for entry in leaves if path_string(entry.path) in chosen]
    if not wanted:
        first = next((e for e in entries if not isinstance(e, Branch)), None)
        such = "" if first is None else f"; a path is, for example, {path_string(first.path)}"
        raise ConfigurationError(f"no leaf matches {' '.join(only)}{plain_text.printable(such)}")
    above = {entry.path[:depth] for entry in wanted for depth in range(len(entry.path) + 1)}
    return [entry for entry in entries if entry.path in above]


def _read(target: ChosenCheckpoint, entry: Entry, stats: bool) -> Row:
    if not isinstance(entry, TensorLeaf):
        return Row(entry)
    single = not entry.leaf.shape and not is_opaque(BY_NAME[entry.leaf.dtype])
    if not single and (not stats or entry.leaf.alias_of is not None):
        return Row(entry)
    tensor = read_tensor(target.path, target.manifest, entry.leaf)
    if single:
        return Row(entry, value=tensor.item())
    return Row(entry, statistics=statistics(tensor))


def _header(target: ChosenCheckpoint) -> Iterator[str]:
    manifest = target.manifest
    owners = [leaf for leaf in manifest.leaves if leaf.alias_of is None]
    count, total = len(manifest.leaves), byte_size(sum(leaf.length for leaf in owners))
    step = "" if manifest.step is None else f"step {manifest.step}, "
    saved = plain_text.moment(manifest.saved_at)
    when = "" if saved == "-" else f", saved {saved} UTC"
    yield str(target.path)
    yield f"{step}{count:,} tensor{'' if count == 1 else 's'}, {total}{when}"
    versions = ", ".join(f"{name} {version}" for name, version in manifest.versions.items())
    yield f"format {'.'.join(map(str, manifest.format))}, {versions}"
    if manifest.metrics:
        yield f"metrics: {plain_text.metrics_text(manifest.metrics)}"
    info = manifest.info
    for name in ("recipe", "environment") if isinstance(info, dict) else ():
        if info.get(name):
            yield f"{name}: {_words(info[name])}"


def _words(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_words, value))}]"
    if not isinstance(value, dict):
        return plain_text.number(value)
    return ", ".join(
        f"{name} ({_words(child)})" if isinstance(child, dict) else f"{name} {_words(child)}"
        for name, child in value.items()
        if child is not None
    )


def _document(target: ChosenCheckpoint, rows: list[Row]) -> dict[str, Any]:
    manifest = target.manifest
    return {
        "path": target.path,
        "step": manifest.step,
        "saved_at": manifest.saved_at,
        "format": ".".join(map(str, manifest.format)),
        "versions": manifest.versions,
        "metrics": manifest.metrics,
        "info": manifest.info,
        "entries": [_entry_document(target, row) for row in rows],
    }


def _entry_document(target: ChosenCheckpoint, row: Row) -> dict[str, Any]:
    entry = row.entry
    path = {"path": path_string(entry.path), "keys": list(entry.path)}
    if isinstance(entry, Branch):
        node = {"node": entry.kind, "class": entry.name, "children": entry.size}
        return {**path, **node, "scalars": entry.scalars}
    if isinstance(entry, Scalar):
        return {**path, "scalar": _type(entry), "value": entry.value}
    leaf, twin = entry.leaf, entry.leaf.alias_of
    document: dict[str, Any] = {
        **path,
        "dtype": leaf.dtype,
        "shape": leaf.shape,
        "bytes": leaf.length,
        "device": leaf.device,
        "alias_of": None if twin is None else target.manifest.leaves[twin].path,
    }
    if row.value is not None:
        document["value"] = row.value
    if row.statistics is not None:
        numbers = attrs.astuple(row.statistics)
        document["statistics"] = dict(zip((*NUMBERS, "nan", "inf"), numbers, strict=True))
    return document


def _type(entry: Scalar) -> str:
    if isinstance(entry.json, dict) and "$enum" in entry.json:
        return "enum"
    return "None" if entry.value is None else type(entry.value).__name__


# Scalars shown per node; a scheduler or a listener may have thousands.
_MOST_SCALARS = 16
NUMBERS = ("min", "max", "mean", "std")


@attrs.frozen(eq=False)
class Row:
    """An entry of the tree with its value or statistics."""

    entry: Entry
    value: Any = None
    statistics: Statistics | None = None


def print_tree(rows: Sequence[Row], stats: bool, console: Console) -> None:
    """Print a row for each entry, indented by depth."""
    lines: list[tuple[object, ...]] = []
    scalars: Counter[Path] = Counter()
    paths = {row.entry.index: row.entry.path for row in rows if isinstance(row.entry, TensorLeaf)}
    for row in rows:
        entry = row.entry
        if isinstance(entry, Scalar):
            scalars[entry.path[:-1]] += 1
            if scalars[entry.path[:-1]] > _MOST_SCALARS:
                continue
        cells = _numbers(row.statistics) if stats else [_size(entry)]
        lines.append((_name(entry), _value(row), *cells, _note(row, paths)))
    hidden = sum(max(0, count - _MOST_SCALARS) for count in scalars.values())
    if hidden:
        lines.append((output.cell(f"... {hidden:,} more scalars (--only, --json)", "dim"),))
    right = NUMBERS if stats else ("size",)
    spare = ("value", "std", "mean") if stats else right
    heads, folded = ("leaf", "value", *right, ""), ("leaf", "value", "")
    output.print_table(console, heads, lines, right=right, folded=folded, spare=spare)


def _name(entry: Entry) -> Text:
    depth = max(0, len(entry.path) - 1)
    name = plain_text.printable(entry.path[-1]) if entry.path else "(root)"
    return Text("  " * depth + name, style="bold" if isinstance(entry, Branch) else "")


def _value(row: Row) -> Text | str:
    """Return what a state prints for the same leaf, or the class of a node."""
    entry = row.entry
    if isinstance(entry, Branch):
        return output.cell(entry.title if entry.size else f"{entry.title}, empty", "dim")
    if isinstance(entry, Scalar):
        return repr(entry.value)
    text = tensor_text(BY_NAME[entry.leaf.dtype], entry.leaf.shape, entry.leaf.device)
    return text if row.value is None else f"{text} = {row.value!r}"


def _size(entry: Entry) -> str:
    return byte_size(entry.leaf.length) if isinstance(entry, TensorLeaf) else ""


def _numbers(found: Statistics | None) -> list[str]:
    if found is None:
        return [""] * len(NUMBERS)
    four = (found.minimum, found.maximum, found.mean, found.std)
    return ["-" if value is None else plain_text.number(value) for value in four]


def _note(row: Row, paths: dict[int, Path]) -> str:
    """Return how many values are not finite, and with which tensor it shares memory."""
    counted = row.statistics
    counts = ((counted.nan, "NaN"), (counted.infinite, "Inf")) if counted else ()
    parts = [f"{count:,} {name}" for count, name in counts if count]
    if isinstance(row.entry, TensorLeaf) and row.entry.leaf.alias_of is not None:
        twin = paths.get(row.entry.leaf.alias_of)
        parts.append("same memory as " + ("another leaf" if twin is None else path_string(twin)))
    return ", ".join(parts)
