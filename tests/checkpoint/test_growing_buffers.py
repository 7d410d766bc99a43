"""Runs of models whose buffers change shape in the forward are saved and resumed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import growing_buffers
import pytest
import torch
from growing_buffers import MODELS, Quantized, Remembering, data, program
from torch import Tensor, nn

import functrain as ft
from functrain.checkpoint import Anything, weights
from functrain.errors import CheckpointMismatchError, ParameterMismatchError
from functrain.testing import check_resumes
from functrain.testing.run_parts import fresh_process

every_model = pytest.mark.parametrize("name", MODELS)
# Of these a checkpoint without the run's notes does not say that the buffer grew.
UNKNOWN = ("two-rows", "double-scalar")
known_models = pytest.mark.parametrize("name", [name for name in MODELS if name not in UNKNOWN])


def stepped(made: ft.Program, steps: int, state: ft.TrainState | None = None) -> ft.TrainState:
    state = made.init() if state is None else state
    for batch in list(data())[:steps]:
        state, _ = made.train_step(state, batch)
    return state


@every_model
def test_a_run_is_resumed(name: str) -> None:
    check_resumes((program(MODELS[name]), data()), steps=12, cuts=[1, 5, 9])


@pytest.mark.parametrize("options", [{"ema": 0.9}, {"accumulate": 2}, {"nonfinite": "skip"}])
@pytest.mark.parametrize("name", ["torch", "empty"])
def test_states_with_all_options_of_a_program(name: str, options: dict[str, Any]) -> None:
    made = {"program": program(MODELS[name], **options), "data": data(), "eval_data": data()}
    check_resumes(lambda: made, steps=7, cuts=[3])


@pytest.mark.slow
def test_in_a_fresh_process(tmp_path: Path) -> None:
    straight = growing_buffers.quantized_run("7 steps", str(tmp_path / "straight"))
    growing_buffers.quantized_run("3 steps", str(tmp_path / "cut"))
    arguments = {"directory": str(tmp_path / "cut"), "threads": torch.get_num_threads()}
    done = fresh_process("growing_buffers", "resume", arguments, hash_seed=1)
    assert done.returncode == 0, done.stderr
    assert ft.Checkpoints(tmp_path / "cut").steps()[-1] == 7
    resumed = growing_buffers.quantized_run("7 steps", str(tmp_path / "cut"))
    assert ft.tree.equal(straight.state, resumed.state)


@known_models
@pytest.mark.parametrize("options", [{}, {"partial": True}, {"cast": True}, {"only": "*"}])
def test_a_saved_state_is_loaded(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    made = program(MODELS[name])
    state = stepped(made, 5)
    ft.save(tmp_path / "c", state)
    loaded = ft.load(tmp_path / "c", like=made.init(), **options)
    assert ft.tree.equal(state, loaded)
    assert ft.tree.equal(stepped(made, 2, state), stepped(made, 2, loaded))


@every_model
def test_the_checkpoint_of_a_run_records_the_initial_buffers(name: str, tmp_path: Path) -> None:
    made, anything = program(MODELS[name]), Anything()
    run = ft.fit(made, data(), until="5 steps", directory=tmp_path / "run")
    like: Any = ft.RunState(made.init(), anything, anything, anything)  # type: ignore[arg-type]
    saved, _ = ft.Checkpoints(tmp_path / "run").restore(like=like)
    assert ft.tree.equal(saved.train, run.state)


@known_models
def test_the_weights_alone(name: str, tmp_path: Path) -> None:
    made = program(MODELS[name])
    run = ft.fit(made, data(), until="5 steps", directory=tmp_path / "run")
    fresh = made.init(params=weights(tmp_path / "run"))
    assert ft.tree.equal(fresh.params, run.state.params)
    if name != "not-persistent":
        assert ft.tree.equal(fresh.buffers, run.state.buffers)
    assert stepped(made, 2, fresh).counters.step == 2


def test_a_state_dict_of_torch() -> None:
    module = Quantized()
    module(torch.randn(8, 4))
    state = program(Quantized).init(params=module.state_dict())
    assert ft.tree.equal(dict(state.params), {k: v.detach() for k, v in module.named_parameters()})
    assert ft.tree.equal(dict(state.buffers), dict(module.named_buffers()))


class Resizing(Remembering):
    """Takes a memory of any length when it is loaded, as torch's observers do."""

    def __init__(self, length: int) -> None:
        super().__init__(torch.zeros(length, 3))

    def _load_from_state_dict(self, values: Any, prefix: str, *rest: Any) -> None:
        if prefix + "memory" in values:
            self.memory = torch.zeros_like(values[prefix + "memory"])
        super()._load_from_state_dict(values, prefix, *rest)


@pytest.mark.parametrize("inside", [False, True])
def test_a_state_dict_for_which_the_module_resizes_buffers(inside: bool) -> None:
    def made(length: int) -> nn.Module:
        return nn.Sequential(Resizing(length)) if inside else Resizing(length)

    values = made(5).state_dict()
    state = program(lambda: made(2)).init(params=values)
    assert ft.tree.equal({**state.params, **state.buffers}, dict(values))
    with pytest.raises(ParameterMismatchError, match=r"memory' has shape \[5, 3\]"):
        program(lambda: Remembering(torch.zeros(2, 3))).init(params=Resizing(5).state_dict())


def test_the_average_is_evaluated_with_them() -> None:
    made = program(Quantized, ema=0.9)
    state = stepped(made, 3)
    assert torch.isfinite(made.eval_step(state, torch.randn(3, 4), weights="ema")["loss"])
    with made.evaluating(state) as module:
        module(torch.randn(3, 4))
    assert state.buffers["fake_quant.scale"].shape == (6,)


@pytest.mark.parametrize("transformed", [ft.donated, ft.checked])
def test_transformed(transformed: Callable[[ft.Program], ft.Program]) -> None:
    plain = program(Quantized)
    made = transformed(plain)
    assert ft.tree.equal(stepped(made, 3), stepped(plain, 3))


class Positions(nn.Module):
    """A table whose length is an option, with the same parameters at any length."""

    table: Tensor

    def __init__(self, length: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.register_buffer("table", torch.randn(length, 4, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x + self.table[: len(x)].mean(0).float())


class TestAnotherModel:
    @pytest.mark.parametrize("length", [4, 16])
    def test_a_table_of_another_length(self, length: int, tmp_path: Path) -> None:
        first, second = program(lambda: Positions(8)), program(lambda: Positions(length))
        ft.fit(first, data(), until="2 steps", directory=tmp_path / "run")
        with pytest.raises(CheckpointMismatchError, match=r"buffers\.table: expected shape"):
            ft.fit(second, data(), until="4 steps", directory=tmp_path / "run")
        path = ft.save(tmp_path / "c", stepped(first, 2))
        with pytest.raises(CheckpointMismatchError, match=r"buffers\.table: expected shape"):
            ft.load(path, like=second.init())
        state = stepped(first, 2)
        with pytest.raises(ParameterMismatchError, match="'table' has shape"):
            second.init(params={**state.params, **state.buffers})

    def test_a_table_of_another_dtype(self, tmp_path: Path) -> None:
        first = program(lambda: Positions(8))
        second = program(lambda: Positions(8, torch.float64))
        ft.fit(first, data(), until="2 steps", directory=tmp_path / "run")
        with pytest.raises(CheckpointMismatchError, match=r"buffers\.table: expected float64"):
            ft.fit(second, data(), until="4 steps", directory=tmp_path / "run")

    def test_a_run_with_another_beginning_is_refused(self, tmp_path: Path) -> None:
        # A scalar would fit a value for each channel, but the run says that it began with those.
        first = program(lambda: Remembering(torch.zeros(2, 3)))
        second = program(lambda: Remembering(torch.zeros(())))
        ft.fit(first, data(), until="2 steps", directory=tmp_path / "run")
        with pytest.raises(CheckpointMismatchError, match=r"buffers\.memory: expected shape"):
            ft.fit(second, data(), until="4 steps", directory=tmp_path / "run")

    def test_every_mismatch_is_listed(self, tmp_path: Path) -> None:
        def normed(width: int) -> Callable[[], nn.Module]:
            return lambda: nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width))

        path = ft.save(tmp_path / "c", stepped(program(normed(3)), 2))
        with pytest.raises(CheckpointMismatchError) as caught:
            ft.load(path, like=program(normed(5)).init())
        told = "\n".join(caught.value.problems)
        assert "params.1.weight: expected shape" in told
        assert "buffers.1.running_mean: expected shape [5], the checkpoint has [3]" in told

    def test_a_parameter_never_grows(self, tmp_path: Path) -> None:
        path = ft.save(tmp_path / "c", stepped(program(lambda: nn.Linear(4, 3)), 1))
        with pytest.raises(CheckpointMismatchError, match=r"params\.bias: expected shape \[1\]"):
            ft.load(path, like=program(lambda: nn.Linear(4, 1)).init())
        module = nn.Linear(4, 3)
        with pytest.raises(ParameterMismatchError, match="'bias' has shape"):
            program(lambda: nn.Linear(4, 1)).init(params=module.state_dict())


def test_unknown_lengths_say_what_to_do(tmp_path: Path) -> None:
    made = program(MODELS["two-rows"])
    state = stepped(made, 2)
    path = ft.save(tmp_path / "c", state)
    with pytest.raises(CheckpointMismatchError) as caught:
        ft.load(path, like=made.init())
    assert "Anything()" in "\n".join(caught.value.__notes__)
    like: Any = attrs.evolve(made.init(), buffers=Anything())  # type: ignore[arg-type]
    assert ft.tree.equal(state, ft.load(path, like=like))


def test_an_older_checkpoint_of_a_run(tmp_path: Path) -> None:
    """Without the notes of a run its buffers are taken as those of any saved state."""
    made, store = program(Quantized), ft.Checkpoints(tmp_path / "run")
    ft.fit(made, data(), until="3 steps", directory=store)
    saved, manifest = store.restore(types=[])
    info = {name: value for name, value in manifest.info.items() if name != "buffers"}
    store.save(saved, step=3, info=info)
    assert ft.fit(made, data(), until="5 steps", directory=store).state.counters.step == 5
