"""Configuration: typed, overridable, and one line with the path for every mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import functrain as ft
from functrain import config
from functrain.config.targets import imported, instantiated
from functrain.errors import ConfigError

MINIMAL = """
model: {_target_: torch.nn.Linear, in_features: 2, out_features: 1}
loss: mine.loss
data: {_target_: mine.data}
optimizer: {_target_: functrain.optim.SGD, lr: 0.1}
fit: {until: 3 steps}
"""
MODULE = """
import torch
def loss(model, batch):
    return model(batch).square().mean()
def data():
    return [torch.ones(4, 2)] * 3
"""


@pytest.mark.row(46)
class TestReading:
    def test_examples_are_typed_and_resolved(self) -> None:
        for name in ("digits", "chargpt"):
            loaded = config.load(name, ["seed=7"])
            assert loaded.config.data["seed"] == 7
            assert loaded.config.directory == f"runs/{name}"

    def test_overrides_reach_any_depth(self) -> None:
        options = ["program.ema.decay=0.5", "fit.until=[3 steps, 1 minute]", "threads=2"]
        loaded = config.load("digits", options).config
        assert loaded.program.ema == ft.EMA(0.5, warmup=True)
        assert loaded.fit.until == ["3 steps", "1 minute"]
        assert loaded.threads == 2

    def test_a_file_with_a_module_beside_it(self, tmp_path: Path) -> None:
        (tmp_path / "run.yaml").write_text(MINIMAL.replace("mine", "beside_it"))
        (tmp_path / "beside_it.py").write_text(MODULE)
        loaded = config.load(str(tmp_path / "run.yaml"), [f"directory={tmp_path / 'out'}"])
        with config.importable(loaded):
            built = config.build(loaded.config)
        run = ft.fit(built.program, built.data, until=loaded.config.fit.until)
        assert run.state.counters.step == 3
        assert not (tmp_path / "out").exists()
        assert config.load(str(tmp_path / "run.yaml")).config.directory == "runs/run"

    def test_the_environment_can_be_referred_to(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("RUN_NAME", "from outside")
        (tmp_path / "run.yaml").write_text(MINIMAL + "name: ${oc.env:RUN_NAME}\n")
        assert config.load(str(tmp_path / "run.yaml")).config.name == "from outside"

    def test_what_is_written_back_reads_as_the_same(self, tmp_path: Path) -> None:
        from omegaconf import OmegaConf

        loaded = config.load("digits", ["seed=3"])
        (tmp_path / "again.yaml").write_text(OmegaConf.to_yaml(loaded.plain))
        assert config.load(str(tmp_path / "again.yaml")).config == loaded.config


BAD = [
    (["sede=1"], "sede: unknown key (did you mean 'seed'?)"),
    (["fit.untill=1 epochs"], "fit.untill: unknown key (did you mean 'until'?)"),
    (["program.ema.decya=0.1"], "program.ema.decya: unknown key (did you mean 'decay'?)"),
    (["seed=abc"], "seed: expected int, came 'abc'"),
    (["program.accumulate=1.5"], "program.accumulate: expected int"),
    (["program.clip_norm=big"], "program.clip_norm: expected float, came 'big'"),
    (["program.clip_norm=-1"], "program: clip_norm must be above 0"),
    (["program.precision=int4"], "program: precision must be one of"),
    (["program.ema.decay=2"], "program.ema: "),
    (["model.widht=3"], "model.widht: ConvNet takes no such argument (did you mean 'width'?)"),
    (["model._target_=functrain.examples.digits.ConvNt"], "(did you mean 'ConvNet'?)"),
    (["model._target_=functrain.exmples.digits.ConvNet"], "(did you mean 'examples'?)"),
    (["model._target_=nowhere.Net"], "there is no module 'nowhere'"),
    (["loss=nothing"], "loss: 'nothing' is no import path"),
    (["loss=functrain.examples.digits.los"], "(did you mean 'loss'?)"),
    (["fit.until=5 parsecs"], "fit.until: '5 parsecs' has the unknown unit"),
    (["fit.eval_every=often"], "fit.eval_every: 'often' has the unknown unit"),
    (["data.batch_size=0"], "data: Batches(batch_size=...) must be an int of at least 1"),
    (["early_stop.patience=0"], "early_stop: patience must be at least 1"),
    (["checkpoints.mode=up"], "checkpoints"),
    (["optimizer=3"], "optimizer: expected a mapping of options, came 3"),
    (["fit=3"], "fit: expected a mapping of options, came 3"),
    (["schedule.lr=${nope}"], "schedule.lr: Interpolation key 'nope' not found"),
    (["schedule.lr=-1"], "optimizer.members.0.1.lr: "),
    (["fit.until=1 steps", "schedule.warmup_proportion=0.9"], "fit.until: WarmupCosine"),
    (["seed"], "override 'seed': write key=value"),
    (["seed={"], "override 'seed={': not valid YAML"),
    (["seed=???"], "seed: Missing mandatory value"),
    (["threads=0"], "threads: expected at least 1"),
    (["model=null"], "model: expected a mapping of options, came None"),
    (["checkpoints=null"], "checkpoints: expected a mapping of options, came None"),
    (["listeners=[3]"], "listeners.0: expected a mapping of options, came 3"),
    (["listeners=[{a: 1}]"], "listeners: {'a': 1} has none of the methods of a listener"),
    (["eval_data._target_=builtins.int"], "eval_data: data must be Batches"),
    (["loss=functrain.examples.digits"], "is a module; name something in it"),
    (["optimizer.members.0.0=[zz*]"], "pattern 'zz*' matches none"),
    (["optimizer.members.9=3"], "optimizer.members.9: "),
    (["fit.until=1 minute"], "fit.until: WarmupCosine has no steps of its own"),
]


@pytest.mark.row(46)
class TestMistakes:
    @pytest.mark.parametrize(("overrides", "message"), BAD, ids=[bad[0][0] for bad in BAD])
    def test_are_one_line_with_the_path(self, overrides: list[str], message: str) -> None:
        with pytest.raises(ConfigError) as caught:
            config.build(config.load("digits", overrides).config)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("seed: 1\nseed: 2\n", "seed"),
            ("seed: [1\n", "not valid YAML: line"),
            ("- 1\n", "expected a mapping"),
            ("seed: 1\n", "model: missing"),
            ("", "missing"),
        ],
    )
    def test_in_the_file_itself(self, tmp_path: Path, text: str, message: str) -> None:
        path = tmp_path / "run.yaml"
        path.write_text(text)
        with pytest.raises(ConfigError, match=message):
            config.load(str(path))

    @pytest.mark.parametrize("source", ["digts", "/nowhere/run.yaml"])
    def test_a_source_there_is_not(self, source: str) -> None:
        with pytest.raises(ConfigError, match=r"digits|cannot be read"):
            config.load(source)


class TestTargets:
    def test_partial_gives_the_function_itself(self) -> None:
        node = {
            "_target_": "torch.nn.functional.cross_entropy",
            "_partial_": True,
            "reduction": "sum",
        }
        assert instantiated(node, "loss").keywords == {"reduction": "sum"}

    def test_a_class_can_be_an_argument(self) -> None:
        import torch

        cls = {"_target_": "functrain.config.imported", "path": "torch.optim.RMSprop"}
        node = {"_target_": "functrain.optim.from_torch", "cls": cls, "lr": 0.1}
        expected = ft.optim.from_torch(torch.optim.RMSprop, lr=0.1)
        assert instantiated(node, "optimizer") == expected

    def test_nested_targets_are_made_first(self) -> None:
        node: Any = {
            "_target_": "functrain.optim.AdamW",
            "lr": {"_target_": "functrain.schedules.Cosine", "lr": 0.1, "steps": 5},
        }
        schedule = ft.schedules.Cosine(lr=0.1, steps=5)
        assert instantiated(node, "optimizer") == ft.optim.AdamW(lr=schedule)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("import not_there_at_all\n", "not_there_at_all"),
            ("def f(:\n", "SyntaxError: invalid syntax"),
            ("\nundefined\n", r"NameError: .*fails_inside_.\.py, line 2"),
        ],
    )
    def test_an_import_that_fails_inside_says_so(
        self, text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        name = f"fails_inside_{len(message) % 10}"
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.syspath_prepend(str(tmp_path))
        with pytest.raises(ConfigError, match=rf"importing {name} failed: .*{message}"):
            imported(f"{name}.thing", "loss")

    def test_options_that_only_hydra_reads_are_accepted(self) -> None:
        node = {"_target_": "builtins.dict", "_convert_": "all", "a": [1]}
        assert instantiated(node, "data") == {"a": [1]}
