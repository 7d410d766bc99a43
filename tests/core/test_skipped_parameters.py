"""Models that train only a part of themselves in some steps, against the plain PyTorch loop."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from compiling import CountingBackend, assert_close
from torch import Tensor, nn

import functrain as ft
from functrain import tree
from functrain.core.accumulation import part_stream

STEPS, STOP = 10, 6
pytestmark = pytest.mark.row(3)


class LayerDrop(nn.Module):
    """Blocks that are left out at random, as in wav2vec2, OPT and others."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 8)
        self.blocks = nn.ModuleList([nn.Linear(8, 8) for _ in range(3)])
        self.last = nn.Linear(8, 1)

    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        hidden = self.first(x)
        for block in self.blocks:
            if not self.training or torch.rand(()) > 0.5:
                hidden = hidden + block(hidden).tanh()
        return self.last(hidden)


class Experts(nn.Module):
    """Each row goes to one expert; one without rows is not called."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(4, 8)
        self.experts = nn.ModuleList([nn.Linear(4, 1) for _ in range(8)])

    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        odds, chosen = self.gate(x).softmax(-1).max(-1)
        result = torch.zeros(len(x), 1)
        for index, expert in enumerate(self.experts):
            rows = (chosen == index).nonzero()[:, 0]
            if len(rows):
                result = result.index_add(0, rows, odds[rows, None] * expert(x[rows]))
        return result


class Late(nn.Module):
    """A part that joins at step 5, and one that is never used."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.norm = nn.Linear(4, 8), nn.LayerNorm(8)
        self.head, self.adapter, self.pooler = nn.Linear(8, 1), nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        hidden = self.norm(self.body(x))
        if step >= 5:
            hidden = hidden + self.adapter(hidden)
        return self.head(hidden)


OPTIMIZERS: dict[str, tuple[Any, Callable[[list[Any]], torch.optim.Optimizer]]] = {
    "AdamW": (ft.optim.AdamW(0.01), lambda p: torch.optim.AdamW(p, 0.01, fused=True)),
    "Adam": (
        ft.optim.Adam(0.01, amsgrad=True),
        lambda p: torch.optim.Adam(p, 0.01, amsgrad=True, fused=True),
    ),
    "RAdam": (ft.optim.RAdam(0.01), lambda p: torch.optim.RAdam(p, 0.01, foreach=True)),
}
every_model = pytest.mark.parametrize("model", [LayerDrop, Experts, Late])
every_optimizer = pytest.mark.parametrize("name", list(OPTIMIZERS))
pure_and_donated = pytest.mark.parametrize("donates", [False, True], ids=["pure", "donated"])


def batch(step: int, rows: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    source = torch.Generator().manual_seed(step)
    x = torch.randn(rows, 4, generator=source)
    return x, x.sum(1, keepdim=True), torch.full((rows,), step)


def loss(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    x, y, step = batch
    return (model(x, step[0]) - y).square().mean()


def made(cls: Any) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = cls()
    return model


def plain_loop(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    seeds: list[int],
    clip_norm: float | None,
    parts: int,
) -> dict[str, Tensor]:
    for step, seed in enumerate(seeds):
        optimizer.zero_grad()
        for part in range(parts):
            torch.default_generator.manual_seed(part_stream(seed, part))
            (loss(model, batch(parts * step + part)) / parts).backward()
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        optimizer.step()
    return {path: param.detach() for path, param in model.named_parameters()}


@every_model
@every_optimizer
@pytest.mark.parametrize("clip_norm", [None, 0.5])
@pure_and_donated
def test_ten_steps_are_the_plain_loop_bit_for_bit(
    model: Any, name: str, clip_norm: float | None, donates: bool
) -> None:
    ours, theirs = OPTIMIZERS[name]
    module = made(model)
    program = ft.program(module, loss, ours, clip_norm=clip_norm)
    program = ft.donated(program) if donates else program
    state = program.init(seed=3)
    seeds = [state.rng.stream("step", step) for step in range(STEPS)]
    for step in range(STEPS):
        state, _ = program.train_step(state, batch(step))
    expected = plain_loop(module, theirs(list(module.parameters())), seeds, clip_norm, 1)
    assert tree.diff(expected, dict(state.params)) == []
    assert "per_parameter" in state.optimizer


@every_model
def test_a_gradient_of_any_micro_batch_counts(model: Any) -> None:
    module = made(model)
    program = ft.program(module, loss, ft.optim.AdamW(0.01))
    state = program.init(seed=3)
    seeds = [state.rng.stream("step", step) for step in range(STEPS)]
    for step in range(STEPS):
        parts = [batch(2 * step), batch(2 * step + 1)]
        state, _ = program.train_step(state, ft.MicroBatches(parts))
    optimizer = torch.optim.AdamW(module.parameters(), 0.01, fused=True)
    expected = plain_loop(module, optimizer, seeds, None, 2)
    for path, param in expected.items():
        torch.testing.assert_close(state.params[path], param, rtol=1e-5, atol=1e-6)


@every_model
@every_optimizer
@pure_and_donated
def test_a_run_that_was_saved_and_loaded_in_between(
    model: Any, name: str, donates: bool, tmp_path: Path
) -> None:
    program = ft.program(made(model), loss, OPTIMIZERS[name][0], ema=0.9)
    program = ft.donated(program) if donates else program
    whole, halves = program.init(), program.init()
    for step in range(STEPS):
        whole, _ = program.train_step(whole, batch(step))
        halves, _ = program.train_step(halves, batch(step))
        if step in (0, STOP):
            ft.save(tmp_path / str(step), halves)
            halves = ft.load(tmp_path / str(step), like=program.init())
    assert tree.diff(whole, halves) == []


@every_model
def test_a_run_by_fit_that_was_stopped_and_goes_on(model: Any, tmp_path: Path) -> None:
    program = ft.program(made(model), loss, ft.optim.NAdam(0.01))
    x, y, step = (torch.cat(parts) for parts in zip(*map(batch, range(9)), strict=True))
    data = ft.data.Batches(list(zip(x, y, step, strict=True)), 3, seed=1)
    whole = ft.fit(program, data, until="8 steps", directory=tmp_path / "whole")
    for until in ("3 steps", "8 steps"):
        halves = ft.fit(program, data, until=until, directory=tmp_path / "halves")
    assert tree.diff(whole.state, halves.state) == []


class TestLoading:
    """A state that has skipped parameters and one that has not are of one structure."""

    program = ft.program(made(Late), loss, ft.optim.groups([("*", ft.optim.NAdam(0.01))]))

    def stepped(self, steps: int = 3) -> ft.TrainState:
        state = self.program.init()
        for step in range(steps):
            state, _ = self.program.train_step(state, batch(step))
        return state

    @pytest.mark.parametrize(
        "options", [{}, {"partial": True}, {"cast": True}, {"migrate": lambda saved: saved}]
    )
    def test_a_new_state_stands_for_a_stepped_one(self, options: Any, tmp_path: Path) -> None:
        saved = self.stepped()
        ft.save(tmp_path / "saved", saved)
        loaded = ft.load(tmp_path / "saved", like=self.program.init(), **options)
        assert tree.diff(saved, loaded) == []
        after = [self.program.train_step(state, batch(7))[0] for state in (saved, loaded)]
        assert tree.diff(*after) == []

    @pytest.mark.parametrize("options", [{}, {"partial": True}, {"cast": True}])
    def test_a_stepped_state_stands_for_a_new_one(self, options: Any, tmp_path: Path) -> None:
        saved = self.program.init()
        ft.save(tmp_path / "saved", saved)
        loaded = ft.load(tmp_path / "saved", like=self.stepped(), **options)
        assert tree.diff(saved, loaded) == []

    def test_a_stepped_state_stands_for_one_that_skipped_others(self, tmp_path: Path) -> None:
        saved = self.stepped()
        optimizer = tree.thawed(saved.optimizer)
        for counts in optimizer["0"]["per_parameter"].values():
            del counts["pooler.weight"]
        fewer = attrs.evolve(saved, optimizer=optimizer)
        ft.save(tmp_path / "saved", saved)
        assert tree.diff(saved, ft.load(tmp_path / "saved", like=fewer)) == []

    def test_what_is_not_wanted_stays_as_it_is(self, tmp_path: Path) -> None:
        saved, like = self.stepped(6), self.stepped(2)
        ft.save(tmp_path / "saved", saved)
        loaded = ft.load(tmp_path / "saved", like=like, only="params")
        assert tree.diff(loaded, attrs.evolve(like, params=saved.params)) == []

    def test_a_parameter_under_another_name_keeps_its_count(self, tmp_path: Path) -> None:
        class Renamed(Late):
            def __init__(self) -> None:
                super().__init__()
                self.plugin = self._modules.pop("adapter")

        program = ft.program(made(Renamed), loss, self.program.recipe.optimizer)
        saved = self.stepped()
        ft.save(tmp_path / "saved", saved)
        rename = {"*.adapter.weight": "*.plugin.weight", "*.adapter.bias": "*.plugin.bias"}
        loaded = ft.load(tmp_path / "saved", like=program.init(), rename=rename)
        ours = saved.optimizer["0"]["per_parameter"]
        theirs = loaded.optimizer["0"]["per_parameter"]
        for name, counts in ours.items():
            renamed = {path.replace("adapter", "plugin"): count for path, count in counts.items()}
            assert tree.diff(renamed, {path: theirs[name][path] for path in renamed}) == []

    def test_a_parameter_that_joins_by_a_partial_load_counts_from_zero(
        self, tmp_path: Path
    ) -> None:
        """As in torch, where one optimizer has them all and some require no gradient at first."""
        module, joined = made(Late), lambda path, _: not path.startswith("body")
        optimizer = ft.optim.AdamW(0.01)
        some = ft.program(module, loss, optimizer, trainable=joined, ema=0.9)
        every = ft.program(module, loss, optimizer, ema=0.9)
        state = some.init()
        theirs = torch.optim.AdamW(module.parameters(), 0.01, fused=True)
        for param in module.body.parameters():
            param.requires_grad_(False)
        for step in range(STEPS):
            if step == STOP:
                ft.save(tmp_path / "some", state)
                with pytest.warns(ft.errors.PartialLoadWarning):
                    state = ft.load(tmp_path / "some", like=every.init(), partial=True)
                module.requires_grad_(True)
            state, _ = (some if step < STOP else every).train_step(state, batch(step))
            theirs.zero_grad()
            loss(module, batch(step)).backward()
            theirs.step()
        expected = {path: param.detach() for path, param in module.named_parameters()}
        assert tree.diff(expected, dict(state.params)) == []

    def test_a_count_of_no_parameter_is_still_refused(self, tmp_path: Path) -> None:
        saved = self.stepped()
        optimizer = tree.thawed(saved.optimizer)
        optimizer["0"]["per_parameter"]["speed"] = {"pooler.weight": torch.tensor(1.0)}
        ft.save(tmp_path / "saved", attrs.evolve(saved, optimizer=optimizer))
        with pytest.raises(ft.errors.CheckpointMismatchError, match="speed"):
            ft.load(tmp_path / "saved", like=self.program.init())

    def test_a_checkpoint_with_one_count_counts_for_every_parameter(self) -> None:
        """As checkpoints were before the parameters were counted one by one."""
        adam = ft.optim.Adam(0.01)
        params = {path: torch.ones(2) for path in "ab"}
        _, state = adam.update(params, adam.init(params), params, 0.01)
        old = {**state, "step": torch.tensor(5.0)}
        for _ in range(2):
            params, old = adam.update({"a": torch.ones(2)}, old, params, 0.01)
        assert old["step"].item() == 7
        assert old["per_parameter"]["step"]["b"].item() == 5


class TestCompiled:
    def programs(self, **options: Any) -> tuple[ft.Program, ft.Program, CountingBackend]:
        def loss_of_stage(model: nn.Module, batch: Any) -> Tensor:
            x, y, stage = batch
            return (model(x, 9 if stage == "late" else 0) - y).square().mean()

        backend = CountingBackend()
        optimizer = ft.optim.groups([("body.*", ft.optim.NAdam(0.01)), ("*", ft.optim.AdamW(0.1))])
        eager = ft.program(made(Late).double(), loss_of_stage, optimizer, **options)
        return eager, ft.compiled(eager, backend=backend), backend

    def run(self, program: ft.Program, stages: list[str]) -> ft.TrainState:
        state = program.init()
        for step, stage in enumerate(stages):
            x, y, _ = batch(step, 4)
            state, _ = program.train_step(state, (x.double(), y.double(), stage))
        return state

    @pytest.mark.sweep("options")
    @pytest.mark.parametrize(
        "options", [{}, {"nonfinite": "skip", "ema": 0.9}, {"accumulate": 2}], ids=repr
    )
    @pytest.mark.parametrize("donates", [True, False], ids=["donated", "pure"])
    def test_steps_are_the_eager_ones(self, options: Any, donates: bool) -> None:
        eager, compiled, backend = self.programs(**options)
        stages = ["early"] * 3 + ["late"] * 2 + ["early", "late"]
        found = self.run(ft.donated(compiled) if donates else compiled, stages)
        assert_close(found, self.run(eager, stages), rtol=1e-9, atol=1e-12)
        assert backend.count == 2  # one graph a stage

    def test_more_parameters_are_skipped_later(self) -> None:
        eager, compiled, _ = self.programs()
        stages = ["late", "late", "early", "late"]
        found, expected = self.run(compiled, stages), self.run(eager, stages)
        assert_close(found, expected, rtol=1e-9, atol=1e-12)

    def test_a_new_state_is_not_compiled_for_again(self) -> None:
        _, compiled, backend = self.programs()
        first, second = (self.run(compiled, ["early"] * 3) for _ in range(2))
        assert tree.diff(first, second) == []
        assert backend.count == 1

    def test_the_callers_state_is_left_alone(self) -> None:
        _, compiled, _ = self.programs()
        state = compiled.init()
        before = copy.deepcopy(state)
        x, y, _ = batch(0)
        compiled.train_step(state, (x.double(), y.double(), "early"))
        assert tree.diff(before, state) == []


@pytest.mark.parametrize("precision", ["float32", "fp16"])
def test_a_step_left_out_counts_for_no_parameter(precision: str) -> None:
    def scaled(model: nn.Module, given: Any) -> Tensor:
        return loss(model, given[:3]) * given[3].mean()

    program = ft.program(
        made(Late), scaled, ft.optim.AdamW(0.01), nonfinite="skip", precision=precision
    )
    states = []
    for factors in ([1.0, 1.0, 1.0], [1.0, float("inf"), 1.0, float("nan"), 1.0]):
        state, step = program.init(), 0
        for factor in factors:
            state, _ = program.train_step(state, (*batch(step), torch.full((3,), factor)))
            step += factor == 1.0
        states.append(state)
    # The random streams differ, which this model does not draw from.
    assert tree.diff(states[0].params, states[1].params) == []
    assert tree.diff(states[0].optimizer, states[1].optimizer) == []
