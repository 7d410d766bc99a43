"""Composition of files. Hydra composes the same folders to the same result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from functrain import config
from functrain.config.loading import compose
from functrain.errors import ConfigError

pytestmark = pytest.mark.row(46)

FILES = {
    "run.yaml": """
defaults:
  - base
  - optimizer: adamw
  - schedule@optimizer.lr: cosine
  - experiment: null
  - optional local: mine
  - _self_
seed: 3
optimizer: {weight_decay: 0.5}
""",
    "first.yaml": """
defaults:
  - _self_
  - base
seed: 3
""",
    "last.yaml": """
defaults:
  - base
seed: 3
width: 2
""",
    "several.yaml": """
defaults:
  - listeners: [csv, bar]
  - deep/er: one
  - /deep/er@elsewhere: two
  - deep/er/three@_global_.there
  - packaged: inside
  - packaged_too: away
""",
    "base.yaml": "seed: 1\nwidth: 8\nnested: {a: 1, b: [1, 2]}\n",
    "optimizer/adamw.yaml": "defaults: [common, _self_]\nname: adamw\nlr: 0.1\nweight_decay: 0.1\n",
    "optimizer/sgd.yaml": "name: sgd\nlr: 1\n",
    "optimizer/common.yaml": "eps: 1e-8\nname: common\nfrom_common: true\n",
    "schedule/cosine.yaml": "name: cosine\nend: 0\n",
    "schedule/linear.yaml": "name: linear\nend: 0.5\n",
    "experiment/fast.yaml": """# @package _global_
defaults:
  - override /optimizer: sgd
  - override /schedule@optimizer.lr: linear
width: 1
nested: {b: [3]}
""",
    "listeners/csv.yaml": "csv: {every: 1}\nboth: csv\n",
    "listeners/bar.yaml": "bar: {every: 2}\nboth: bar\n",
    "deep/er/one.yaml": "defaults: [two@below]\none: 1\n",
    "deep/er/two.yaml": "two: 2\n",
    "deep/er/three.yaml": "three: 3\n",
    "packaged/inside.yaml": "# @package optimizer.inner\n# A remark.\nx: 1\n",
    "packaged_too/away.yaml": "# A remark.\n# @package optimizer.inner\ny: 1\n",
}
CASES: list[tuple[str, list[str]]] = [
    ("run", []),
    ("first", []),
    ("last", []),
    ("several", []),
    ("run", ["optimizer=sgd"]),
    ("run", ["schedule@optimizer.lr=linear"]),
    ("run", ["experiment=fast"]),
    ("run", ["experiment=fast", "optimizer=adamw"]),
    ("run", ["~optimizer"]),
    ("run", ["~schedule@optimizer.lr"]),
    ("last", ["+optimizer=sgd"]),
    ("last", ["+schedule@optimizer.lr=linear"]),
    ("last", ["+experiment.x=3", "nested.a=5"]),
    ("last", ["seed=7", "+new.deep=[1, 2]", "~width", "nested.b=[9]"]),
    ("last", ["~nested.a", "++width=9", "++new=1"]),
    ("last", ["nested={a: 4}", "~width=2"]),
    ("last", ["seed=1e-3", "width=null", "nested.a=true"]),
    ("last", ["seed=text", "width=''", "nested.a=${seed}"]),
    ("several", ["listeners=[bar]"]),
    ("several", ["listeners=csv"]),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("configs")
    for name, text in FILES.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    return place


def of_hydra(folder: Path, name: str, overrides: list[str]) -> Any:
    hydra = pytest.importorskip("hydra")
    from omegaconf import OmegaConf, open_dict

    with hydra.initialize_config_dir(str(folder), version_base="1.3"):
        # functrain checks keys against its schema, Hydra against the file.
        found = hydra.compose(name, overrides)
    with open_dict(found):
        return OmegaConf.to_container(found)


@pytest.mark.filterwarnings("ignore:In 'last'.*_self_")
@pytest.mark.parametrize(("name", "overrides"), CASES, ids=lambda case: str(case))
def test_hydra_composes_the_same(folder: Path, name: str, overrides: list[str]) -> None:
    ours, _, _ = compose(str(folder / f"{name}.yaml"), overrides)
    assert ours == of_hydra(folder, name, overrides)


class TestMistakes:
    def message(self, folder: Path, name: str, *overrides: str) -> str:
        with pytest.raises(ConfigError) as caught:
            compose(str(folder / f"{name}.yaml"), overrides)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def test_a_missing_file_is_an_error_with_the_existing_ones(self, folder: Path) -> None:
        said = self.message(folder, "run", "schedule@optimizer.lr=cosin")
        assert f"{folder}/run.yaml:5: defaults: there is no file schedule/cosin.yaml" in said
        assert "(did you mean 'cosine'?)" in said
        assert "constant, cosine, linear" in said  # also shipped ones

    def test_a_missing_group_is_an_error_with_the_existing_ones(self, tmp_path: Path) -> None:
        (tmp_path / "run.yaml").write_text("defaults:\n  - optimiser: adamw\n")
        said = self.message(tmp_path, "run")
        assert "run.yaml:2: defaults: there is no file optimiser/adamw.yaml" in said
        assert "(did you mean 'optimizer'?)" in said

    def test_a_cycle_shows_the_chain(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        for name, other in (("a", "b"), ("b", "c"), ("c", "b")):
            (tmp_path / f"{name}.yaml").write_text(f"defaults: [{other}]\n")
        with pytest.raises(ConfigError, match=r"c\.yaml:1: .*: b\.yaml -> c\.yaml -> b\.yaml$"):
            compose("a.yaml")
        (tmp_path / "self.yaml").write_text("defaults: [self]\n")
        with pytest.raises(ConfigError, match=r"include each other: self\.yaml -> self\.yaml$"):
            compose("self.yaml")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("defaults: base\n", "run.yaml:1: defaults: expected a list"),
            ("defaults: [3]\n", "run.yaml:1: defaults: expected a file"),
            ("defaults: [{a: b, c: d}]\n", "expected a file (base), a choice"),
            ("defaults: [{optimizer: 3}]\n", "expected the name of a file, got 3"),
            ("defaults: [_self_, _self_]\n", "_self_ occurs twice"),
            ("defaults: [override optimiser: sgd, optimizer: sgd]\n", "no file includes that"),
            ("defaults: [{override optimiser: sgd}, {optimizer: sgd}]\n", "mean 'optimizer'?"),
        ],
    )
    def test_in_the_list(self, tmp_path: Path, text: str, message: str) -> None:
        (tmp_path / "run.yaml").write_text(text)
        assert message in self.message(tmp_path, "run")

    def test_a_choice_for_a_missing_group_is_an_error_that_says_how_to_add_it(
        self, folder: Path
    ) -> None:
        assert "+optimizer=... adds one of" in self.message(folder, "last", "optimizer=sgd")
        said = self.message(folder, "run", "schedule@optimizer.lrr=linear")
        assert "(did you mean 'schedule@optimizer.lr'?)" in said

    def test_an_error_in_an_included_file_names_it(self, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "run.yaml").write_text("defaults: [other]\n")
        (tmp_path / "other.yaml").write_text("seed: 1\nseed: 2\n")
        said = self.message(tmp_path, "run")
        assert "other.yaml:2: seed: duplicate key, first in line 1" in said


def test_a_value_of_an_included_file_is_located_there(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("defaults: [program: mine]\nseed: 1\n")
    (tmp_path / "program").mkdir()
    (tmp_path / "program" / "mine.yaml").write_text("ema: 0.9\nclip_nrom: 3\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml:2: program.clip_nrom: unknown key .did"):
        config.load(str(tmp_path / "run.yaml"))


class TestAGroupThatTheFileWritesOut:
    def test_is_replaced_as_a_whole(self) -> None:
        loaded = config.load("digits", ["optimizer=sgd", "optimizer.lr=0.3"])
        assert loaded.plain["optimizer"] == {
            "_target_": "functrain.optim.SGD",
            "lr": 0.3,
            "momentum": 0.9,
            "nesterov": True,
        }

    def test_that_others_refer_to(self) -> None:
        plain = config.load("digits", ["schedule=linear"]).plain
        rates = [member[1]["lr"] for member in plain["optimizer"]["members"]]
        assert plain["schedule"]["_target_"] == "functrain.schedules.Linear"
        assert rates == [plain["schedule"]] * 2

    def test_mistakes_are_located_in_the_chosen_file(self, tmp_path: Path) -> None:
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "small.yaml").write_text("_target_: torch.nn.Linear\nwidht: 3\n")
        (tmp_path / "run.yaml").write_text("model:\n  _target_: torch.nn.Linear\n")
        _, places, _ = compose(str(tmp_path / "run.yaml"), ["model=small"])
        assert places["model.widht"].endswith("small.yaml:2")
        assert "run.yaml" not in places["model._target_"]
