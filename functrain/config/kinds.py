"""Kinds of values in a configuration that Python's types do not tell apart."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

import attrs


@attrs.frozen
class AtLeast:
    """A number has a lower bound, itself included."""

    least: int


@attrs.frozen
class Described:
    """How a value is described to an editor.

    Attributes:
        definition: name in the schema's ``$defs``.
    """

    definition: str


# A mapping with ``_target_``; one such, or several by name.
Target: TypeAlias = Annotated[dict[str, Any], Described("target")]
Targets: TypeAlias = Annotated[dict[str, Any], Described("targets")]
ImportPath: TypeAlias = Annotated[str, Described("import_path")]
Duration: TypeAlias = Annotated[str, Described("duration")]
