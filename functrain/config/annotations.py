"""Annotations for values in a configuration that Python's types do not distinguish."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

import attrs


@attrs.frozen
class AtLeast:
    """A number has an inclusive lower bound."""

    least: int


@attrs.frozen
class Described:
    """The definition of a value in the JSON Schema.

    Attributes:
        definition: the name in ``$defs`` of the schema.
    """

    definition: str


# A mapping with ``_target_``; one of these, or several by name.
Target: TypeAlias = Annotated[dict[str, Any], Described("target")]
Targets: TypeAlias = Annotated[dict[str, Any], Described("targets")]
ImportPath: TypeAlias = Annotated[str, Described("import_path")]
Duration: TypeAlias = Annotated[str, Described("duration")]
