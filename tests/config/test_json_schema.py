"""The schema for editors agrees with the loader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from functrain import config
from functrain.config.json_schema import json_schema
from functrain.config.yaml_file import parse_file

pytestmark = pytest.mark.row(46)

jsonschema = pytest.importorskip("jsonschema")
PACKAGE = Path(config.__file__).parent.parent / "examples"
EXAMPLES = Path(__file__).parents[2] / "examples" / "configs"
WHOLE = [PACKAGE / "digits.yaml", PACKAGE / "chargpt.yaml", *sorted(EXAMPLES.glob("*.yaml"))]
GROUPS = sorted((PACKAGE / "config").glob("*/*.yaml"))


def errors(data: Any, schema: dict[str, Any] | None = None) -> list[str]:
    validator = jsonschema.Draft202012Validator(schema or json_schema())
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(data)]


def read(path: Path) -> Any:
    # As an editor does, without resolving references; numbers may have exponents.
    found = parse_file(path.read_text(), path.name)
    return {**found.data, **({"defaults": found.defaults} if found.defaults else {})}


def test_it_is_a_valid_schema_of_its_draft() -> None:
    schema = json_schema()
    assert schema["$schema"] == jsonschema.Draft202012Validator.META_SCHEMA["$id"]
    jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("path", WHOLE, ids=lambda path: path.name)
def test_shipped_files_are_valid(path: Path) -> None:
    if "base" in yaml.safe_load(path.read_text()):
        pytest.skip("a search, which has a schema of its own")
    assert errors(read(path)) == []


@pytest.mark.parametrize("path", GROUPS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_shipped_groups_are_targets(path: Path) -> None:
    schema = json_schema()
    assert errors(read(path), {"$ref": "#/$defs/target", "$defs": schema["$defs"]}) == []
    made = config.instantiated(read(path), path.parent.name)
    assert callable(getattr(made, "init", None))


@pytest.mark.parametrize("name", ["digits", "chargpt"])
def test_a_resolved_configuration_is_valid(name: str) -> None:
    assert errors(config.load(name).plain) == []


def test_every_key_is_described() -> None:
    schema = json_schema()
    parts = {"": schema, **{k: v for k, v in schema["$defs"].items() if "properties" in v}}
    assert {"ProgramOptions", "FitOptions", "EMA", "EarlyStop"} <= set(parts)
    for name, part in parts.items():
        for key, value in part["properties"].items():
            assert "description" in value or "$ref" in value, f"{name}.{key}"


@pytest.mark.parametrize(
    "change",
    [
        {"sede": 1},
        {"seed": "one"},
        {"program": {"clip_nrom": 1}},
        {"program": {"accumulate": 0}},
        {"program": {"precision": "int4"}},
        {"fit": {"until": "10"}},
        {"loss": "loss"},
        {"checkpoints": {"mode": "up"}},
        {"early_stop": {"patiense": 3}},
        {"seeds": ["a"]},
        {"model": 3},
    ],
    ids=str,
)
def test_the_schema_rejects_mistakes(change: dict[str, Any]) -> None:
    plain = config.load("digits").plain
    assert errors({**plain, **change})


@pytest.mark.parametrize("name", ["bf16", "bfloat16", "fp16", "float16"])
def test_a_precision_has_the_name_of_its_dtype_too(name: str) -> None:
    loaded = config.load("digits", [f"program.precision={name}"])
    assert errors(loaded.plain) == []
    short = name.replace("bfloat", "bf").replace("float", "fp")
    assert config.build_program(loaded.config).recipe.precision == short


def test_a_reference_may_replace_any_value() -> None:
    plain = config.load("digits").plain
    changes = {"seed": "${x}", "fit": {"until": "${x}"}, "schedule": "${x}", "seeds": ["${x}"]}
    assert errors({**plain, **changes}) == []
