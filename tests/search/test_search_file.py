"""The YAML file of a search."""

from __future__ import annotations

from pathlib import Path

import pytest

from functrain.config import load_search
from functrain.errors import ConfigError
from functrain.search.space import Choices, Range

FILE = """
base: digits
overrides: [fit.until=1 epoch]
metric: eval/loss
space:
  schedule.lr: {type: float, min: 1e-4, max: 1e-1, log: true}
  model: {width: [8, 16]}
"""


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "my_search.yaml"
    path.write_text(text)
    return str(path)


@pytest.mark.row(47)
def test_a_file_and_its_overrides(tmp_path: Path) -> None:
    source = written(tmp_path, FILE)
    options = load_search(source)
    assert (options.name, options.directory) == ("my_search", "runs/my_search")
    assert options.overrides == ["fit.until=1 epoch"]
    assert options.space["schedule.lr"] == Range("float", 1e-4, 1e-1, log=True)
    changed = ["space.schedule.lr.max=1.0", "space.model.width=[4]", "seeds=[1,2]", "name=a"]
    options = load_search(source, [*changed, "sampler.seed=3"])
    assert options.space["schedule.lr"] == Range("float", 1e-4, 1.0, log=True)
    assert options.space["model.width"] == Choices([4])
    assert (options.seeds, options.directory, options.sampler) == ([1, 2], "runs/a", {"seed": 3})


def test_a_base_in_the_folder_of_the_file_is_found(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("name: mine")
    source = written(tmp_path, FILE.replace("base: digits", "base: mine.yaml"))
    assert load_search(source).base == str(tmp_path / "mine.yaml")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("metric:", "metrik:", "metrik: unknown key .did you mean 'metric'"),
        ("metric: eval/loss", "", "metric: missing"),
        ("metric: eval/loss", "metric: 3", "my_search.yaml:4: metric: expected text, got 3"),
        ("base: digits", "base: [a]", "base: expected text"),
        ("base: digits", "base: digits\ntrials: true", "trials: expected a whole number, got true"),
        ("base: digits", "base: digits\nseeds: 3", "seeds: expected a list"),
        (
            "base: digits",
            "base: digits\npruner: MedianPruner",
            "pruner: expected a mapping of options or null",
        ),
        ("base: digits", "base: ${nowhere}", "nowhere"),
        ("[fit.until=1 epoch]", "{fit: 3}", "overrides: expected a list, got"),
        ("base: digits", "base: [", "my_search.yaml: "),
    ],
)
def test_mistakes_are_one_line_with_the_key(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_search(written(tmp_path, FILE.replace(old, new)))
    assert "\n" not in str(caught.value)


def test_mistakes_in_the_space_and_the_path_are_errors(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"my_search.yaml:6: space.schedule.lr: unknown key 'logg'"
    ):
        load_search(written(tmp_path, FILE.replace("log: true", "logg: true")))
    with pytest.raises(ConfigError, match="space: expected a mapping of options, got 3"):
        load_search(written(tmp_path, FILE.split("space:")[0] + "space: 3"))
    with pytest.raises(ConfigError, match="did you mean 'digits_search'"):
        load_search("digit_search")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_search(str(tmp_path / "nowhere.yaml"))
    with pytest.raises(ConfigError, match="expected a mapping"):
        load_search(written(tmp_path, "- 1\n- 2"))


@pytest.mark.row(47)
def test_a_file_may_include_others_like_the_file_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "common.yaml").write_text("sampler: {seed: 3}\nspace: {model: {width: [8, 32]}}\n")
    source = written(tmp_path, f"defaults: [common]\n{FILE}")
    options = load_search(source, ["~space.schedule.lr", "+space.model.depth={choices: [1]}"])
    assert options.sampler == {"seed": 3}
    assert options.space == {"model.width": Choices([8, 16]), "model.depth": Choices([1])}
    with pytest.raises(ConfigError, match=r"base: already exists"):
        load_search(source, ["+base=chargpt"])
