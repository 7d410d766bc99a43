"""Derive the JSON Schema (draft 2020-12) of configurations from their classes.

Editors use it to complete and check YAML that begins with
``# yaml-language-server: $schema=FILE``.
"""

from __future__ import annotations

import inspect
import re
import typing
from typing import Any, Literal

import attrs
from torch import Tensor

from functrain.config.conversion import AtLeast, Described, alternatives, fields, unannotated
from functrain.config.schema import RunConfig

DRAFT = "https://json-schema.org/draft/2020-12/schema"
_KINDS: dict[Any, str] = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    type(None): "null",
    list: "array",
    dict: "object",
}
_REFERENCE = {"$ref": "#/$defs/reference"}
# Requires ``_target_`` to distinguish a target from other mappings; elsewhere another file may
# provide it.
_COMPLETE = {"$ref": "#/$defs/target", "required": ["_target_"]}
_ATTRIBUTE = re.compile(r"^    (\w+): (.*(?:\n {8}.*)*)", re.MULTILINE)
_FIXED: dict[str, Any] = {
    "reference": {
        "description": "${key} for another value, ${oc.env:NAME,default} for the environment.",
        "type": "string",
        "pattern": r"\$\{.+\}|^\?\?\?$",
    },
    "target": {
        "description": "An object: _target_, an import path, and its arguments.",
        "type": "object",
        "properties": {
            "_target_": {"$ref": "#/$defs/import_path"},
            "_args_": {"description": "Positional arguments.", "type": "array"},
            "_partial_": {"description": "The function itself, with these arguments bound."},
            "_recursive_": {"description": "false: targets in the arguments stay plain mappings."},
            "_convert_": {"description": "Read by Hydra only."},
        },
    },
    "targets": {
        "description": "One target, or several by name.",
        "type": "object",
        "anyOf": [
            _COMPLETE,
            {
                "propertyNames": {"not": {"pattern": "^_.*_$"}},
                "additionalProperties": {"anyOf": [{"$ref": "#/$defs/target"}, _REFERENCE]},
            },
        ],
    },
    "import_path": {
        "description": "package.module.name, of a class or function.",
        "type": "string",
        "anyOf": [{"pattern": r"^\w+(\.\w+)+$"}, _REFERENCE],
    },
    "duration": {
        "description": "10 epochs, 500 steps, 1e6 samples, 20 minutes.",
        "type": "string",
        "anyOf": [{"pattern": r"^\s*[0-9.eE+_,-]+\s*[A-Za-z]+\s*$"}, _REFERENCE],
    },
    "defaults": {
        "description": "Files to include, in order; _self_ stands for this file.",
        "type": "array",
        "items": {"type": ["string", "object"]},
    },
}


def json_schema() -> dict[str, Any]:
    """Return the schema of a file for ``functrain train``.

    Example:
        >>> schema = json_schema()
        >>> schema["properties"]["seed"]["description"]
        'root of all randomness.'
    """
    definitions: dict[str, Any] = dict(_FIXED)
    whole = _object(RunConfig, definitions)
    whole["properties"]["defaults"] = {"$ref": "#/$defs/defaults"}
    # Included files may have the required keys.
    needed = whole.pop("required")
    whole["anyOf"] = [{"required": needed}, {"required": ["defaults"]}]
    return {"$schema": DRAFT, "title": "functrain", **whole, "$defs": definitions}


def _object(cls: type, definitions: dict[str, Any]) -> dict[str, Any]:
    sentence, descriptions = _described(cls)
    properties: dict[str, Any] = {}
    for name, field in fields(cls).items():
        properties[name] = _of(field.type, definitions)
        if name in descriptions:
            properties[name] = {"description": descriptions[name], **properties[name]}
        if isinstance(field.default, bool | int | float | str):
            properties[name]["default"] = field.default
    needed = [n for n, field in fields(cls).items() if field.default is attrs.NOTHING]
    made: dict[str, Any] = {"description": sentence, "type": "object", "properties": properties}
    return {**made, "required": needed, "additionalProperties": False}


def _of(hint: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    # YAML has no tensors, which hyperparameters may be in Python.
    options = [option for option in alternatives(hint) if option is not Tensor]
    found = [_option(option, definitions) for option in options]
    if any(attrs.has(unannotated(option)[0]) for option in options):
        target = {"$ref": "#/$defs/target"}
        found = [_COMPLETE if each == target else each for each in found]
    if all(_is_text(each) for each in found):
        return found[0] if len(found) == 1 else {"anyOf": found}
    return {"anyOf": [*found, _REFERENCE]}


def _option(option: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    kind, note = unannotated(option)
    if isinstance(note, Described):
        return {"$ref": f"#/$defs/{note.definition}"}
    if attrs.has(kind):
        if kind.__name__ not in definitions:
            section = definitions[kind.__name__] = _object(kind, definitions)
            section["properties"]["_target_"] = {"description": "For Hydra; must name this class."}
        return {"$ref": f"#/$defs/{kind.__name__}"}
    if typing.get_origin(kind) is Literal:
        return {"enum": list(typing.get_args(kind))}
    plain, arguments = typing.get_origin(kind) or kind, typing.get_args(kind)
    made: dict[str, Any] = {"type": _KINDS[plain]}
    if plain is list:
        made["items"] = _of(arguments[0], definitions)
    if plain is dict and arguments[1] is not Any:
        made["additionalProperties"] = _of(arguments[1], definitions)
    if isinstance(note, AtLeast):
        made["minimum"] = note.least
    return made


def _is_text(schema: dict[str, Any]) -> bool:
    """Return whether a schema already allows a reference."""
    reference = schema.get("$ref", "")
    return schema.get("type") == "string" or reference.endswith(("/import_path", "/duration"))


def _described(cls: type) -> tuple[str, dict[str, str]]:
    """Return the first line of a docstring, and ``Attributes`` by name, also of bases."""
    texts = [inspect.cleandoc(each.__doc__ or "") for each in reversed(cls.__mro__[:-1])]
    listed = (text.partition("Attributes:\n")[2].partition("\n\n")[0] for text in texts)
    found = (pair for each in listed for pair in _ATTRIBUTE.findall(each))
    return texts[-1].partition("\n")[0], {name: " ".join(words.split()) for name, words in found}
