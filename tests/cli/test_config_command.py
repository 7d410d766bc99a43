"""``functrain config check | show | schema``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from functrain.cli.entry_point import app
from functrain.errors import ConfigError

pytestmark = pytest.mark.row(46)


def functrain(*arguments: str) -> str:
    ended = CliRunner().invoke(app, ["config", *arguments], catch_exceptions=False)
    assert ended.exit_code == 0
    return ended.stdout


def test_check_says_ok_on_one_line_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = functrain("check", "digits", "seeds=[0, 1]", "program.precision=bf16")
    assert said == (
        "OK digits: ConvNet (58,474 trained parameters), Groups, bf16, until 30 epochs, "
        "evaluated on eval, seeds 0, 1 -> runs/digits\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_check_finds_errors_of_building_objects() -> None:
    with pytest.raises(ConfigError, match="data: Batches"):
        functrain("check", "digits", "data.batch_size=0")


def test_show_prints_the_composed_and_resolved_configuration() -> None:
    shown = yaml.safe_load(functrain("show", "digits", "seed=3"))
    assert (shown["directory"], shown["data"]["seed"]) == ("runs/digits", 3)
    raw = yaml.safe_load(functrain("show", "digits", "--unresolved"))
    assert (raw["directory"], raw["data"]["seed"]) == ("runs/${name}", "${seed}")


def test_show_prints_the_location_of_a_value() -> None:
    said = functrain("show", "digits", "seed=3", "--places")
    assert "model.width: 32" in said
    assert "functrain/examples/digits.yaml:10" in said
    (line,) = [line for line in said.splitlines() if line.startswith("seed:")]
    assert line.endswith("# -")


def test_schema_is_json() -> None:
    assert json.loads(functrain("schema"))["title"] == "functrain"
