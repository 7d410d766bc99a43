"""Weights read from files are those that a run evaluated, whatever its optimizer trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import schedulefree
import torch
from torch import nn

import functrain as ft
from functrain import optim
from functrain.checkpoint import weights
from functrain.checkpoint.exporting import export
from functrain.errors import ConfigurationError
from functrain.optim.wrapping import Wrapper

SCHEDULE_FREE = optim.ScheduleFreeAdamW(lr=0.1)
LOOKAHEAD = optim.Lookahead(optim.SGD(lr=0.3), sync_period=5)
OPTIMIZERS = {
    "AdamW": optim.AdamW(lr=0.1),
    "schedule-free": SCHEDULE_FREE,
    "beta as a tensor": optim.ScheduleFreeSGD(lr=0.1, momentum=torch.tensor(0.8)),
    "lookahead": LOOKAHEAD,
    "wrapped": optim.ClipByBlockRms(optim.AdaptiveGradClip(SCHEDULE_FREE, 0.1), 0.1),
    "groups": optim.groups(
        [("*0.weight", LOOKAHEAD), ("*0.*", SCHEDULE_FREE), ("*", optim.Frozen())]
    ),
    "master": optim.Float32State(optim.groups([("*", SCHEDULE_FREE)]), master_weights=True),
    "float32": optim.Float32State(SCHEDULE_FREE),
    "master of lookahead": optim.Float32State(LOOKAHEAD, master_weights=True),
    "torch": optim.from_torch(torch.optim.RMSprop, lr=0.1),
}


class Halving(Wrapper):
    """A user's optimizer, which evaluates other weights and does not say which."""

    def __init__(self, optimizer: Any) -> None:
        self.inner = optimizer

    @property
    def optimizer(self) -> Any:
        return self.inner

    def bind(self, params: Any) -> Any:
        return self

    def eval_params(self, state: Any, params: Any) -> Any:
        return {path: param / 2 for path, param in params.items()}


def loss(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    return (model(batch.to(model[0].weight.dtype)) - 1).square().mean().float()


def program(optimizer: Any, dtype: torch.dtype = torch.float32, **options: Any) -> ft.Program:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4, bias=False))
    model[2].weight = model[0].weight
    return ft.program(model.to(dtype), loss, optimizer, **options)


def fitted(made: Any, directory: Path) -> ft.Run:
    torch.manual_seed(1)
    return ft.fit(made, [torch.randn(8, 4) for _ in range(4)], until="8 steps", directory=directory)


def evaluated(made: ft.Program, state: Any, of: str = "params") -> dict[str, torch.Tensor]:
    with made.evaluating(state, of) as model:
        return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_files_have_the_weights_that_are_evaluated(
    tmp_path: Path, name: str, dtype: torch.dtype
) -> None:
    made = program(OPTIMIZERS[name], dtype, ema=0.5)
    run = fitted(made, tmp_path / "run")
    expected = evaluated(made, run.state)
    assert ft.tree.equal(weights(tmp_path / "run"), expected)
    for suffix in ("safetensors", "pt"):
        file = export(run.directory / "step-00000008", tmp_path / f"w.{suffix}")
        assert ft.tree.equal(weights(file), expected)
    begun = program(optim.SGD(lr=0.1), dtype).init(params=tmp_path / "run")
    assert all(ft.tree.equal(value, expected[path]) for path, value in begun.params.items())
    assert ft.tree.equal(weights(tmp_path / "run", "ema"), evaluated(made, run.state, "ema"))
    raw = weights(tmp_path / "run", "trained")
    assert all(ft.tree.equal(raw[path], value) for path, value in run.state.params.items())
    averages = name not in ("AdamW", "torch")
    assert ft.tree.equal(raw, expected) != averages


def test_names_of_one_weight_are_one_tensor(tmp_path: Path) -> None:
    run = fitted(program(SCHEDULE_FREE), tmp_path / "run")
    export(run.directory / "step-00000008", tmp_path / "w.pt")
    for found in (weights(tmp_path / "run"), weights(tmp_path / "w.pt")):
        assert found["0.weight"].data_ptr() == found["2.weight"].data_ptr()


@pytest.mark.parametrize(
    "optimizer",
    [
        optim.from_torch(schedulefree.AdamWScheduleFree, lr=0.1),
        optim.groups([("*", optim.from_torch(schedulefree.SGDScheduleFree, lr=0.1))]),
        Halving(optim.SGD(lr=0.1)),
    ],
    ids=["from_torch", "within groups", "own"],
)
def test_weights_that_only_the_optimizer_knows_are_asked_for(
    tmp_path: Path, optimizer: Any
) -> None:
    run = fitted(program(optimizer), tmp_path / "run")
    readers = [
        lambda: weights(tmp_path / "run"),
        lambda: export(run.directory / "step-00000008", tmp_path / "w.pt"),
        lambda: program(optim.SGD(lr=0.1)).init(params=tmp_path / "run"),
    ]
    for read in readers:
        with pytest.raises(ConfigurationError, match="what='trained'"):
            read()
    raw = weights(tmp_path / "run", "trained")
    assert ft.tree.equal(raw["0.weight"], run.state.params["0.weight"])


def test_an_own_optimizer_that_evaluates_what_it_trains_is_read(tmp_path: Path) -> None:
    class Same(Halving):
        def eval_params(self, state: Any, params: Any) -> Any:
            return params

    run = fitted(program(Same(optim.SGD(lr=0.1))), tmp_path / "run")
    assert ft.tree.equal(weights(tmp_path / "run")["0.weight"], run.state.params["0.weight"])


@pytest.mark.parametrize("name", ["schedule-free", "lookahead", "groups", "master"])
def test_a_state_saved_without_its_program_asks(tmp_path: Path, name: str) -> None:
    made = program(OPTIMIZERS[name])
    state, _ = made.train_step(made.init(), torch.randn(8, 4))
    place = ft.save(tmp_path / "state", state)
    with pytest.raises(ConfigurationError, match="what='trained'"):
        weights(place)
    assert ft.tree.equal(weights(place, "trained")["0.weight"], state.params["0.weight"])


def test_of_one_of_several_programs(tmp_path: Path) -> None:
    def step(programs: Any, states: Any, batch: torch.Tensor, rng: Any) -> Any:
        found = {name: one.train_step(states[name], batch) for name, one in programs.items()}
        return {name: state for name, (state, _) in found.items()}, found["one"][1]

    programs = {"one": program(SCHEDULE_FREE), "other": program(optim.SGD(lr=0.1))}
    run = fitted(ft.joint(programs, step=step), tmp_path / "run")
    for name, made in programs.items():
        expected = evaluated(made, getattr(run.state, name))
        assert ft.tree.equal(weights(tmp_path / "run", program=name), expected)
