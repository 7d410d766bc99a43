"""Row 40: start from weights, raw or averaged, of a checkpoint or of a plain file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import functrain as ft
from functrain import tree
from functrain.checkpoint import weights
from functrain.checkpoint.exporting import export
from functrain.errors import (
    CheckpointCorruptError,
    CheckpointSkippedWarning,
    ConfigurationError,
    NoCheckpointError,
)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4, bias=False)
        self.norm = nn.BatchNorm1d(4)
        self.outer = nn.Linear(4, 4, bias=False)
        self.outer.weight = self.inner.weight
        self.register_buffer("scratch", torch.zeros(1), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.outer(self.norm(self.inner(x)))


def loss(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    return model(batch).square().mean()


def program() -> ft.Program:
    torch.manual_seed(0)
    return ft.program(Net(), loss, ft.optim.AdamW(lr=0.1), ema=0.5)


@pytest.fixture
def run(tmp_path: Path) -> ft.Run:
    torch.manual_seed(1)
    data = [torch.randn(8, 4) for _ in range(4)]
    store = ft.Checkpoints(tmp_path / "run")
    return ft.fit(program(), data, until="6 steps", save_every="3 steps", directory=store)


@pytest.mark.row(40)
@pytest.mark.parametrize("what", ["params", "ema"])
def test_from_a_run_or_one_checkpoint_of_it(run: ft.Run, what: Any) -> None:
    state = run.state
    expected = state.params if what == "params" else (state.ema or {})["params"]
    for path in (run.directory, run.directory / "step-00000006"):
        fresh = program().init(seed=5, params=weights(path, what))
        assert tree.equal(fresh.params, expected)
        assert torch.equal(fresh.buffers["norm.running_var"], state.buffers["norm.running_var"])
        assert fresh.counters.step == 0
        assert not any(
            bool(moment.any()) for moment in tree.flatten(fresh.optimizer["exp_avg"]).values()
        )
        Net().load_state_dict(weights(path, what), strict=True)
    earlier = weights(run.directory / "step-00000003", what)
    assert not torch.equal(earlier["inner.weight"], expected["inner.weight"])


def step(programs: Any, states: Any, batch: torch.Tensor, rng: torch.Generator) -> Any:
    made = {name: programs[name].train_step(states[name], batch) for name in ("one", "other")}
    return {**states, **{name: state for name, (state, _) in made.items()}}, {}


@pytest.mark.parametrize("what", ["params", "ema"])
def test_of_one_of_several_programs(tmp_path: Path, what: Any) -> None:
    queue = ft.custom(lambda seed: {"params": torch.zeros(2)}, lambda tree, batch, rng: (tree, {}))
    several = ft.joint({"one": program(), "other": program(), "queue": queue}, step=step)
    data = [torch.randn(8, 4) for _ in range(4)]
    run = ft.fit(several, data, until="2 steps", directory=tmp_path / "run", progress=False)
    found = weights(run.directory, what, program="other")
    state = run.state.other
    expected = state.params if what == "params" else state.ema["params"]
    assert torch.equal(found["outer.weight"], expected["inner.weight"])
    assert set(found) == set(Net().state_dict())  # with ties, without transient buffers
    everything = weights(run.directory, "all", program="other")
    assert torch.equal(everything["ema.params.norm.bias"], state.ema["params"]["norm.bias"])
    checkpoint = run.directory / "step-00000002"
    file = export(checkpoint, tmp_path / "w.safetensors", what, program="other")
    assert tree.equal(load_file(file), found)
    with pytest.raises(ConfigurationError, match=r"\['one', 'other'\]: say whose weights"):
        weights(run.directory)
    with pytest.raises(ConfigurationError, match="did you mean 'other'"):
        weights(run.directory, program="othr")
    with pytest.raises(ConfigurationError, match="is a plain file"):
        weights(file, program="other")
    nested = ft.joint({"both": several}, step=lambda p, s, b, r: (s, {}))
    place = ft.save(tmp_path / "nested", nested.init())
    assert set(weights(place, program="both.one")) >= {"inner.weight"}


def test_a_name_is_refused_for_one_program(run: ft.Run) -> None:
    with pytest.raises(ConfigurationError, match="of one program; leave it out"):
        weights(run.directory, program="generator")


def test_frozen_parameters_go_to_a_separate_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = ft.program(Net(), loss, ft.optim.AdamW(lr=0.1), trainable=["norm.*"])
    data = [torch.randn(8, 4) for _ in range(4)]
    first = ft.fit(made, data, until="2 steps", directory=tmp_path)
    place = tmp_path / "step-00000002"
    assert list(load_file(place / "frozen.safetensors")) == ["inner.weight"]
    assert sorted(load_file(place / "params.safetensors")) == ["norm.bias", "norm.weight"]
    Net().load_state_dict(weights(place), strict=True)
    again = ft.fit(made, data, until="4 steps", directory=tmp_path)
    assert torch.equal(again.state.params["inner.weight"], first.state.params["inner.weight"])
    assert tree.diff(again.state, ft.fit(made, data, until="4 steps").state) == []


@pytest.mark.row(40)
@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_from_a_plain_file(tmp_path: Path, name: str) -> None:
    torch.manual_seed(3)
    values = Net().state_dict()
    if name.endswith("pt"):
        torch.save(values, tmp_path / name)
    else:
        save_file({key: value.clone() for key, value in values.items()}, tmp_path / name)
    assert tree.equal(weights(tmp_path / name), dict(values))
    fresh = program().init(params=weights(tmp_path / name))
    assert torch.equal(fresh.params["inner.weight"], values["inner.weight"])


def test_the_payload_file_of_a_checkpoint_is_a_plain_file_too(run: ft.Run) -> None:
    found = weights(run.directory / "step-00000006" / "params.safetensors")
    assert tree.equal(found, run.state.params)


def test_restore_skips_a_damaged_checkpoint(run: ft.Run) -> None:
    for step in (6, 3):
        (run.directory / f"step-0000000{step}" / "params.safetensors").unlink()
        if step == 6:
            with pytest.warns(CheckpointSkippedWarning, match="step-00000006"):
                assert weights(run.directory)["inner.weight"].shape == (4, 4)
    with (
        pytest.warns(CheckpointSkippedWarning),
        pytest.raises(CheckpointCorruptError, match="every checkpoint"),
    ):
        weights(run.directory)


def test_files_without_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NoCheckpointError, match="no checkpoint and no file"):
        weights(tmp_path / "nothing")
    with pytest.raises(ConfigurationError, match="no tensors are under 'params'"):
        weights(ft.save(tmp_path / "other", {"x": torch.ones(1)}))
    with pytest.raises(ConfigurationError, match="no averaged weights"):
        weights(ft.save(tmp_path / "raw", {"params": {"x": torch.ones(1)}}), "ema")
    for name in ("a.safetensors", "a.pt"):
        (tmp_path / name).write_bytes(b"not at all")
        with pytest.raises(CheckpointCorruptError, match="cannot be read as weights"):
            weights(tmp_path / name)
    torch.save({"model": {"x": torch.ones(1)}}, tmp_path / "nested.pt")
    with pytest.raises(ConfigurationError, match="no state_dict"):
        weights(tmp_path / "nested.pt")


class Evil:
    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit('code of a file was run')",)


def test_no_code_of_a_file_is_run(tmp_path: Path) -> None:
    torch.save({"x": torch.ones(1), "evil": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointCorruptError, match="cannot be read as weights"):
        weights(tmp_path / "evil.pt")
