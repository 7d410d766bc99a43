"""Configurations are typed, overridden and resolved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
import yaml

import functrain as ft
from functrain import config
from functrain.config import factories
from functrain.config.conversion import convert
from functrain.errors import ConfigError


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

    @pytest.mark.parametrize("options", ["{start: 5}", "{_target_: functrain.SWA, start: 5}"])
    def test_an_average_is_the_one_that_has_the_options(self, options: str) -> None:
        assert convert(yaml.safe_load(options), float | ft.EMA | ft.SWA | None) == ft.SWA(start=5)

    def test_a_file_with_a_module_in_its_folder(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (folder / "mine.py").rename(folder / "beside_it.py")
        (folder / "run.yaml").write_text(
            (folder / "run.yaml").read_text().replace("mine", "beside_it")
        )
        monkeypatch.undo()  # neither the working directory nor on the path
        loaded = config.load(str(folder / "run.yaml"), [f"directory={folder / 'out'}"])
        with config.importable(loaded):
            built = config.build(loaded.config)
        run = ft.fit(built.program, built.data, until=loaded.config.fit.until)
        assert run.state.counters.step == 3
        assert not (folder / "out").exists()
        assert config.load(str(folder / "run.yaml")).config.directory == "runs/run"

    def test_references_to_the_environment(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("RUN_NAME", "from outside")
        loaded = config.load(
            "run.yaml", ["name=${oc.env:RUN_NAME}", "threads=${oc.decode:${oc.env:NO,2}}"]
        )
        assert (loaded.config.name, loaded.config.threads) == ("from outside", 2)
        assert loaded.config.directory == "runs/from outside"

    def test_yaml_is_parsed_as_in_omegaconf(self) -> None:
        from omegaconf import OmegaConf

        from functrain.config.yaml_file import parse_file

        text = """
a: [1e-3, 1E5, 1_000, 0x10, 2026-01-01, yes, off, ~, null, "1", .5, -.inf, 1e3]
b: &base {x: 1, y: [2]}
c: {<<: *base, x: 3}
d: *base
e: |
  two
  lines
"""
        assert parse_file(text, "f").data == OmegaConf.to_container(OmegaConf.create(text))

    def test_a_written_configuration_loads_unchanged(self, tmp_path: Path) -> None:
        from omegaconf import OmegaConf

        loaded = config.load("digits", ["seed=3"])
        (tmp_path / "again.yaml").write_text(OmegaConf.to_yaml(loaded.plain))
        assert config.load(str(tmp_path / "again.yaml")).config == loaded.config


@pytest.mark.row(46)
class TestArgumentsOfFitAndProgram:
    """Every argument of ``program`` and ``fit`` has a key; a new one fails here."""

    def test_all_arguments_of_program_and_fit_are_covered(self) -> None:
        import inspect

        from functrain.config.schema import (
            CheckpointOptions,
            CompiledOptions,
            FitOptions,
            ProgramOptions,
            RunConfig,
        )

        def fields(*classes: type) -> set[str]:
            return {field.name for cls in classes for field in attrs.fields(cls)}

        def parameters(function: Any) -> set[str]:
            return set(inspect.signature(function).parameters)

        whole = fields(RunConfig)
        assert parameters(ft.program) <= fields(ProgramOptions) | whole
        # The command line has a progress bar of its own.
        elsewhere = {"program", "data", "state", "directory", "progress"}
        assert parameters(ft.fit) - elsewhere <= fields(FitOptions) | whole
        assert parameters(ft.compiled) - {"program"} == fields(CompiledOptions)
        assert parameters(ft.Checkpoints) - {"directory"} == fields(CheckpointOptions)

    def test_transformations(self, folder: Path) -> None:
        def program(*overrides: str) -> ft.Program:
            loaded = config.load("run.yaml", overrides)
            with config.importable(loaded):
                return config.build_program(loaded.config)

        assert program("program.donated=true").donates
        sharp = program("program.sharpness_aware={rho: 0.2}")
        assert sharp.recipe.sharpness.rho == 0.2
        assert program("program.sharpness_aware=true").recipe.sharpness.rho == 0.05
        options = "program.compiled={backend: eager, fallback: true}"
        compiled = program(options, "program.sharpness_aware=true", "program.donated=true")
        assert "eager" in compiled.device_step.description
        assert compiled.device_step.fallback
        assert program("program.compiled=false").device_step.__class__ is type(
            program().device_step
        )

    def test_a_compiled_run_trains(self, train: Any) -> None:
        assert train("program.compiled={backend: eager}").state.counters.step == 3

    def test_ema_is_a_decay_or_options(self, folder: Path) -> None:
        for text in ("0.5", "{decay: 0.5}", "{_target_: functrain.EMA, decay: 0.5}"):
            loaded = config.load("run.yaml", [f"program.ema={text}"])
            with config.importable(loaded):
                assert config.build_program(loaded.config).recipe.ema == ft.EMA(0.5)

    def test_the_device_applies_to_the_model_and_to_a_resumed_state(self, train: Any) -> None:
        run = train("device=cpu")
        assert run.state.params["weight"].device == torch.device("cpu")
        loaded = config.load("run.yaml", ["device=meta"])
        assert factories.build_model(loaded.config).weight.device.type == "meta"

    def test_a_loss_with_bound_arguments(self, train: Any) -> None:
        plain = train("directory=a").history["loss"][0]
        scaled = train(
            "directory=b", "loss={_target_: mine.loss, _partial_: true, scale: 2.0}"
        ).history["loss"][0]
        assert scaled == 2 * plain

    def test_positional_arguments_make_a_model_of_layers(self, train: Any) -> None:
        layer = "{_target_: torch.nn.Linear, in_features: 2, out_features: 2}"
        run = train(
            "~model", f"+model={{_target_: torch.nn.Sequential, _args_: [{layer}, {layer}]}}"
        )
        assert set(run.state.params) == {"0.weight", "0.bias", "1.weight", "1.bias"}

    def test_listeners_by_name(self, train: Any, capsys: pytest.CaptureFixture[str]) -> None:
        train("listeners={a: {_target_: mine.Listener, word: x}, b: null}")
        assert capsys.readouterr().out == "listener x\n"

    def test_no_listeners(self, train: Any, capsys: pytest.CaptureFixture[str]) -> None:
        train("listeners=null")
        assert capsys.readouterr().out == ""

    def test_a_listener_with_a_program_parameter_receives_it(self, train: Any) -> None:
        monitor = "{_target_: functrain.listeners.GradientMonitor, every: 1 step}"
        run = train(f"listeners=[{monitor}]")
        assert any(name.startswith("grad_norm/") or "grad" in name for name in run.history.names())

    def test_evaluations_with_their_own_options(self, train: Any) -> None:
        one = "{_target_: functrain.Evaluation, data: {_target_: mine.data}, batches: 1}"
        run = train(f"eval_data={{small: {one}, all: {{_target_: mine.data}}}}")
        assert {"small/loss", "all/loss"} <= set(run.history.names())

    def test_rules_of_early_stopping(self, train: Any) -> None:
        data = "eval_data={_target_: mine.data}"
        options = ["fit.eval_every=1 step", "fit.until=99 steps", data, "optimizer.lr=0.0"]
        for rule in (
            "{patience: 1}",
            "{_target_: functrain.EarlyStop, patience: 1}",
            "[{monitor: eval/loss, patience: 9}, {_target_: functrain.EarlyStop, patience: 1}]",
        ):
            run = train(f"early_stop={rule}", *options, f"directory=runs/{len(rule)}")
            assert (run.reason, run.state.counters.step) == ("early_stop", 2)

    def test_rules_of_retention(self, train: Any, folder: Path) -> None:
        rule = "{_target_: functrain.checkpoint.retention.Last, count: 2}"
        train(
            f"checkpoints={{keep_last: 1, keep_best: 0, keep: [{rule}]}}", "fit.save_every=1 step"
        )
        assert len([*(folder / "runs" / "run").glob("step-*")]) == 2

    def test_restore_best(self, train: Any) -> None:
        options = ["fit.eval_every=1 step", "eval_data={_target_: mine.data}"]
        diverging = [*options, "optimizer.lr=1.0"]
        assert train(*diverging, "directory=last").state.counters.step == 3
        run = train(*diverging, "fit.restore_best=true")
        assert run.best["step"] == run.state.counters.step == 1

    def test_resume_from_a_step(self, train: Any) -> None:
        train("fit.save_every=1 step")
        assert train("fit.resume=2", "fit.until=2 steps").state.counters.step == 2


@pytest.mark.row(40)
class TestInitFrom:
    def test_initial_weights_of_a_run(self, train: Any) -> None:
        first = train("directory=runs/first", "program.ema=0.5")
        for overrides, expected in (
            (["init_from=runs/first"], first.state.params),
            (["init_from={path: runs/first, weights: ema}"], first.state.ema["params"]),
        ):
            state = train(
                *overrides, "optimizer.lr=0.0", f"directory=runs/{len(overrides[0])}"
            ).state
            assert state.counters.step == 3
            assert all(torch.equal(state.params[name], expected[name]) for name in expected)

    def test_some_of_the_weights(self, train: Any) -> None:
        first = train("directory=runs/first")
        fresh = train("seed=5", "optimizer.lr=0.0", "directory=runs/fresh").state.params
        options = "init_from={path: runs/first, only: weight}"
        some = train(options, "seed=5", "optimizer.lr=0.0").state.params
        assert torch.equal(some["weight"], first.state.params["weight"])
        assert torch.equal(some["bias"], fresh["bias"])

    def test_a_safetensors_file(self, train: Any, folder: Path) -> None:
        from safetensors.torch import save_file

        save_file({"weight": torch.ones(1, 2), "bias": torch.ones(1)}, folder / "w.safetensors")
        state = train("init_from=w.safetensors", "optimizer.lr=0.0").state
        assert torch.equal(state.params["weight"], torch.ones(1, 2))

    def test_weights_that_do_not_fit_are_an_error_with_key_and_path(self, train: Any) -> None:
        train("directory=runs/first")
        with pytest.raises(ConfigError, match=r"init_from: the given params do not fit.*'weight'"):
            train("init_from=runs/first", "model.in_features=3")
        with pytest.raises(ConfigError, match=r"init_from: only: 'x\*' matches none"):
            train("init_from={path: runs/first, only: x*}")
