"""Every mistake is one line with the key in the configuration, the file and the line."""

from __future__ import annotations

from pathlib import Path

import pytest

from functrain import config
from functrain.errors import ConfigError

BAD = [
    (["sede=1"], "sede: unknown key (did you mean 'seed'?)"),
    (["fit.untill=1 epochs"], "fit.untill: unknown key (did you mean 'until'?)"),
    (["program.ema.decya=0.1"], "program.ema.decya: unknown key (did you mean 'decay'?)"),
    (["seed=abc"], "seed: expected a whole number, got 'abc'"),
    (["program.accumulate=1.5"], "program.accumulate: expected a whole number, got 1.5"),
    (["program.clip_norm=big"], "program.clip_norm: expected a number or null, got 'big'"),
    (["program.clip_norm=-1"], "program: clip_norm: expected a number above 0"),
    (
        ["program.precision=int4"],
        "expected 'float32', 'bf16', 'fp16', 'bfloat16' or 'float16', got 'int4'",
    ),
    (["program.ema.decay=2"], "program.ema: "),
    (["model.widht=3"], "model.widht: ConvNet takes no such argument (did you mean 'width'?)"),
    (["model._target_=functrain.examples.digits.ConvNt"], "(did you mean 'ConvNet'?)"),
    (["model._target_=functrain.exmples.digits.ConvNet"], "(did you mean 'examples'?)"),
    (["model._target_=nowhere.Net"], "there is no module 'nowhere'"),
    (["loss=nothing"], "loss: 'nothing' is not an import path"),
    (["loss=functrain.examples.digits.los"], "(did you mean 'loss'?)"),
    (["fit.until=5 parsecs"], "fit.until: '5 parsecs' has the unknown unit"),
    (["fit.eval_every=often"], "fit.eval_every: 'often' has the unknown unit"),
    (["data.batch_size=0"], "data: Batches: batch_size: expected an integer >= 1"),
    (["early_stop.patience=0"], "early_stop: EarlyStop: patience: expected a number >= 1"),
    (["checkpoints.mode=up"], "checkpoints.mode: expected 'min', 'max' or null, got 'up'"),
    (["early_stop.mode=up"], "early_stop.mode: expected 'min', 'max' or null, got 'up'"),
    (["early_stop.monitor=evl/loss"], "early_stop: early_stop depends on 'evl/loss', which no"),
    (["early_stop.monitor=evl/ema/loss"], "(did you mean 'eval/ema/loss'?)"),
    (["early_stop=[{monitor: val/loss}]"], "(did you mean 'eval/loss'?)"),
    (["checkpoints.monitor=evl/accuracy"], "checkpoints.monitor: the best checkpoint depends on"),
    (["program.ema=null"], "early_stop: early_stop depends on 'eval/ema/loss', which no"),
    (
        ["program.ema=null", "early_stop=null"],
        "checkpoints.monitor: the best checkpoint depends on",
    ),
    (["eval_data=null"], "early_stop: without eval_data nothing is evaluated"),
    (["eval_data=null", "early_stop=null", "fit.restore_best=true"], "fit.restore_best: without"),
    (
        [
            "~schedule.warmup_proportion",
            "schedule._target_=functrain.schedules.Plateau",
            "checkpoints={monitor: evl/ema/accuracy, keep_best: 0}",
        ],
        "optimizer: the learning rate schedule depends on 'evl/ema/accuracy'",
    ),
    (["optimizer=3"], "optimizer: expected a mapping with _target_ or null, got 3"),
    (["fit=3"], "fit: expected a mapping of options, got 3"),
    (["schedule.lr=${nope}"], "schedule.lr: Interpolation key 'nope' not found"),
    (["schedule.lr=-1"], "optimizer.members.0.1.lr: "),
    (["fit.until=1 steps", "schedule.warmup_proportion=0.9"], "fit.until: WarmupCosine"),
    (["seed"], "override 'seed': write key=value"),
    (["seed={"], "override 'seed={': not valid YAML"),
    (["seed=???"], "seed: Missing mandatory value"),
    (["threads=0"], "threads: expected at least 1"),
    (["model=null"], "model: missing"),
    (["checkpoints=null"], "checkpoints: expected a mapping of options, got null"),
    (["listeners=[3]"], "listeners.0: expected a mapping with _target_, got 3"),
    (["listeners=[{a: 1}]"], "listeners.0._target_: missing; give the import path"),
    (["eval_data._target_=builtins.int"], "eval_data: data: expected Batches"),
    (["loss=functrain.examples.digits"], "is a module; name an object in it"),
    (["optimizer.members.0.0=[zz*]"], "pattern 'zz*' matches none"),
    (["optimizer.members.9=3"], "optimizer.members.9: "),
    (["fit.until=1 minute"], "fit.until: WarmupCosine has no steps of its own"),
    (["fit.until=3"], "fit.until: expected a duration such as '10 epochs' or a list, got 3"),
    (["optimizer={_target_:torch.optim.SGD}"], "YAML needs a space after each colon"),
    (["optimizer._target_=torch.optim.SGD"], "use one of functrain.optim, or _target_: functr"),
    (
        ["program.ema=2"],
        "program.ema: EMA: decay: expected a number from 0 to 1 or a 0-dim tensor, got 2.0",
    ),
    (["clip_norm=1"], "clip_norm: unknown key (did you mean 'program.clip_norm'?)"),
    (["program.ema=true"], "program.ema: expected a number, a mapping of options or null"),
    (["program.accumulate=0"], "program.accumulate: expected at least 1, got 0"),
    (["program.compiled.mdoe=x"], "program.compiled.mdoe: unknown key (did you mean 'mode'?)"),
    (["seeds=[]"], "seeds: expected different numbers, at least one"),
    (["seeds=[1, 1]"], "seeds: expected different numbers, at least one"),
    (["seeds=[1, x]"], "seeds.1: expected a whole number, got 'x'"),
    (["model._traget_=3"], "model._traget_: unknown key (did you mean '_target_'?)"),
    (["~model._target_"], "model._target_: missing; give the import path of a class or function"),
    (["model._target_=functrain.optim.SGD", "~model.width", "~model.dropout"], "got SGD"),
    (["device=gpu"], "device: "),
    (["matmul_precision=tf32"], "matmul_precision: expected 'highest', 'high', 'medium' or null"),
    (["init_from=/nowhere"], "init_from: there is no checkpoint and no file at /nowhere"),
    (["loss={_target_: functrain.EMA}"], "loss._target_: expected a function, got EMA; _partial_"),
    (["early_stop={_target_: functrain.EMA}"], "early_stop.monitor: EMA takes no such argument"),
    (["early_stop=[{_target_: functrain.EMA}]"], "early_stop: expected a rule such as"),
    (["listeners={bar: 3}"], "listeners.bar: expected a mapping with _target_ or null, got 3"),
    (
        ["~eval_data", "+eval_data={a: {_target_: builtins.int}}"],
        "eval_data.a: data: expected Batches",
    ),
    (["schedule.lr=${sede}"], "'sede' not found (did you mean 'seed'?)"),
    (["optimizer.members.0.1.lr.x=1"], "optimizer.members.0.1.lr: is ${schedule}, so it has no"),
    (["+seed=1"], "seed: already exists; seed=... changes it, ++seed=... does either"),
    (["~sede"], "sede: there is nothing to remove (did you mean 'seed'?)"),
    (["~seed=3"], "seed: is 0, so ~seed=3 removes nothing"),
    (["=3"], "write key=value"),
    (["optimizer=sdg"], "optimizer has no file 'sdg' (did you mean 'sgd'?); there are adafactor,"),
    (["schedule@optimizer.lr=cosine"], "has no 'schedule@optimizer.lr'; +schedule@optimizer.lr="),
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
            ("seed: 1\n", "data: missing"),
            ("", "missing"),
        ],
    )
    def test_in_the_file_itself(self, tmp_path: Path, text: str, message: str) -> None:
        path = tmp_path / "run.yaml"
        path.write_text(text)
        with pytest.raises(ConfigError, match=message):
            config.load(str(path))

    @pytest.mark.parametrize("source", ["digts", "/nowhere/run.yaml"])
    def test_a_missing_source(self, source: str) -> None:
        with pytest.raises(ConfigError, match=r"digits|cannot be read"):
            config.load(source)

    def test_a_misspelt_file(self, tmp_path: Path) -> None:
        (tmp_path / "train.yaml").write_text("seed: 1\n")
        with pytest.raises(ConfigError, match=r"cannot be read.*did you mean 'train.yaml'"):
            config.load(str(tmp_path / "trian.yaml"))


@pytest.mark.row(46)
class TestLocations:
    """An error has the file and the line of its key."""

    def build(self) -> None:
        loaded = config.load("run.yaml")
        with config.importable(loaded):
            config.build(loaded.config)

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("lr: 0.1", "lrr: 0.1", "run.yaml:4: optimizer.lrr: SGD takes no such argument (did"),
            ("lr: 0.1", "lr: -1", "run.yaml:4: optimizer: "),
            (
                "until: 3",
                "untill: 3",
                "run.yaml:5: fit.untill: unknown key (did you mean 'until'?)",
            ),
            ("3 steps", "3 stesp", "run.yaml:5: fit.until: '3 stesp' has the unknown unit"),
            ("functrain.optim.SGD", "functrain.optim.SDG", "run.yaml:4: optimizer._target_: "),
            ("mine.loss", "mine.los", "run.yaml:2: loss: 'mine.los': mine has no 'los' (did you"),
            ("mine.data", "mine.fails", "run.yaml:3: data: KeyError: 'no such column' ("),
            ("torch.nn.Linear", "torch.nn.Linaer", "(did you mean 'Linear'?)"),
            ("in_features", "in_feature", "run.yaml:1: model.in_feature: Linear takes no such"),
            ("in_features: 2, ", "", "run.yaml:1: model.in_features: missing; Linear needs it"),
            ("fit:", "fti:", "run.yaml:5: fti: unknown key (did you mean 'fit'?)"),
            ("out_features: 1", "out_features: one", "run.yaml:1: model: TypeError: "),
            ("fit:", "seed: 1\nfit:\n  until: 1\nfit:", "run.yaml:8: fit: duplicate key, first in"),
            ("until: 3 steps}", "until: 3 steps", "run.yaml: not valid YAML: line 6: "),
            ("loss: ", "loss ", "run.yaml: not valid YAML: line 3: "),
            ("lr: 0.1", "lr: ${rate}", "quote it"),
            ("lr: 0.1", 'lr: "${rate}"', "run.yaml:4: optimizer.lr: Interpolation key 'rate' not"),
        ],
    )
    def test_of_a_mistake(self, folder: Path, old: str, new: str, message: str) -> None:
        text = (folder / "run.yaml").read_text()
        assert old in text
        (folder / "run.yaml").write_text(text.replace(old, new))
        with pytest.raises(ConfigError) as caught:
            self.build()
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_a_duplicate_key_is_found_at_any_depth(self, folder: Path) -> None:
        (folder / "run.yaml").write_text("listeners:\n- a: 1\n  b:\n    c: 1\n    c: 2\n")
        with pytest.raises(ConfigError, match=r"^run.yaml:5: listeners.0.b.c: duplicate key"):
            config.load("run.yaml")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("{a: 1}: 3\n", "a key must be text"),
            ("~: 3\n", "a key must be text"),
            ("a: \x00\n", "run.yaml: not valid YAML: "),
            ("a: !!python/object/apply:os.system [echo]\n", "could not determine a constructor"),
        ],
    )
    def test_invalid_content(self, folder: Path, text: str, message: str) -> None:
        (folder / "run.yaml").write_text(text)
        with pytest.raises(ConfigError) as caught:
            config.load("run.yaml")
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_an_alias_that_contains_itself(self, folder: Path) -> None:
        (folder / "run.yaml").write_text("data: &a\n  x: [*a]\n")
        with pytest.raises(ConfigError, match=r"run.yaml:.*data.x.0: an alias contains itself"):
            config.load("run.yaml")


@pytest.mark.parametrize("text", ["0x_", "0b_", "!!int abc", "!!float x", "!!bool xyz", "9" * 5000])
def test_a_scalar_that_is_no_value_is_one_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read as"):
        config.load("digits", [f"name={text}"])
    (tmp_path / "run.yaml").write_text(f"name: {text}\n")
    with pytest.raises(ConfigError, match=r"run\.yaml.*line 1.*cannot be read as"):
        config.load(str(tmp_path / "run.yaml"))


@pytest.mark.parametrize("text", ["._", "._5", "._e+5", "-._"])
def test_what_has_no_digit_first_is_text(text: str) -> None:
    assert config.load("digits", [f"name={text}"]).config.name == text
    with pytest.raises(ConfigError, match="expected a whole number"):
        config.load("digits", [f"seed={text}"])


@pytest.mark.parametrize("given", ["directory=", "name=", "directory=''", "directory=null"])
def test_an_unset_variable_is_no_directory(given: str) -> None:
    with pytest.raises(ConfigError, match=given.partition("=")[0]):
        config.load("digits", [given])
    with pytest.raises(ConfigError, match=given.partition("=")[0]):
        config.load_search("digits_search", [given])


def test_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    loaded = config.load("digits", ["directory=~/runs/a"])
    assert config.build(loaded.config).store.directory == tmp_path / "runs" / "a"
    assert config.load_search("digits_search", ["directory=~/s"]).directory == str(tmp_path / "s")
