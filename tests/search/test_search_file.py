"""The YAML file of a search."""

from __future__ import annotations

from pathlib import Path

import pytest

from functrain.errors import SearchError
from functrain.search.search_file import read_search
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
    options = read_search(source)
    assert (options.name, options.directory) == ("my_search", "runs/my_search")
    assert options.overrides == ["fit.until=1 epoch"]
    assert options.space["schedule.lr"] == Range("float", 1e-4, 1e-1, log=True)
    changed = ["space.schedule.lr.max=1.0", "space.model.width=[4]", "seeds=[1,2]", "name=a"]
    options = read_search(source, [*changed, "sampler.seed=3"])
    assert options.space["schedule.lr"] == Range("float", 1e-4, 1.0, log=True)
    assert options.space["model.width"] == Choices([4])
    assert (options.seeds, options.directory, options.sampler) == ([1, 2], "runs/a", {"seed": 3})


def test_a_base_in_the_folder_of_the_file_is_found(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("name: mine")
    source = written(tmp_path, FILE.replace("base: digits", "base: mine.yaml"))
    assert read_search(source).base == str(tmp_path / "mine.yaml")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("metric:", "metrik:", "metrik: unknown key .did you mean 'metric'"),
        ("metric: eval/loss", "", "metric: missing"),
        ("metric: eval/loss", "metric: 3", "metric: expected str, got 3"),
        ("base: digits", "base: [a]", "base: expected str"),
        ("base: digits", "base: digits\ntrials: true", "trials: expected int, got True"),
        ("base: digits", "base: digits\nseeds: 3", "seeds: expected list, got 3"),
        ("base: digits", "base: digits\npruner: MedianPruner", "pruner: expected dict or nothing"),
        ("base: digits", "base: ${nowhere}", "nowhere"),
        ("[fit.until=1 epoch]", "{fit: 3}", "overrides: expected a list of key=value"),
        ("base: digits", "base: [", "my_search.yaml: "),
    ],
)
def test_mistakes_are_one_line_with_the_key(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    with pytest.raises(SearchError, match=message) as caught:
        read_search(written(tmp_path, FILE.replace(old, new)))
    assert "\n" not in str(caught.value)


def test_mistakes_in_the_space_and_the_path_are_errors(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match=r"my_search.yaml: space: schedule.lr: unknown key"):
        read_search(written(tmp_path, FILE.replace("log: true", "logg: true")))
    with pytest.raises(SearchError, match="space: expected parameters"):
        read_search(written(tmp_path, FILE.split("space:")[0] + "space: 3"))
    with pytest.raises(SearchError, match="did you mean 'digits_search'"):
        read_search("digit_search")
    with pytest.raises(SearchError, match="cannot be read"):
        read_search(str(tmp_path / "nowhere.yaml"))
    with pytest.raises(SearchError, match="expected a mapping"):
        read_search(written(tmp_path, "- 1\n- 2"))
