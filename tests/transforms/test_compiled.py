"""Steps compiled as one graph, compared with the same steps run eagerly."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import processes
import pytest
import torch
from compiling import CountingBackend, assert_close, mean_square
from models import CASES, Case, classify
from torch import Tensor, nn

import functrain as ft
from functrain import tree
from functrain.errors import (
    CaptureError,
    CompilationError,
    ConfigurationError,
    FallbackWarning,
    LossError,
    NonFiniteError,
    RecipeChangedWarning,
    RecompileWarning,
)
from functrain.transforms.graph import inputs

pytestmark = pytest.mark.row(50)


def batch(size: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(size, 6, generator=generator)
    return x, torch.randint(0, 3, (size,), generator=generator)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def compiled(loss: Any = classify, model: nn.Module | None = None, **options: Any) -> ft.Program:
    """The graph of a program, uncompiled: what is captured is what is tested here."""
    keys = ("mode", "options", "backend", "fallback", "directory", "update")
    how = {"backend": "eager"} | {key: options.pop(key) for key in keys if key in options}
    optimizer = options.pop("optimizer", ft.optim.AdamW(lr=1e-2))
    return ft.compiled(ft.program(model or network(), loss, optimizer, **options), **how)


def run(program: ft.Program, case: Case, steps: int) -> ft.TrainState:
    state = program.init()
    for index in range(steps):
        state, _ = program.train_step(state, case.batch(index, 6))
    return state


# A large epsilon: without it Adam takes the rounding noise of a gradient that ought to be zero
# (that of a bias before a norm) for a direction.
CALM = ft.optim.AdamW(lr=1e-2, eps=1e-2)


@pytest.mark.slow
@pytest.mark.sweep
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_fifty_compiled_steps_are_fifty_eager_steps(case: Case) -> None:
    program = case.program(CALM, clip_norm=0.5, ema=0.9)
    graph = ft.compiled(program)
    pure, donated = run(graph, case, 50), run(ft.donated(graph), case, 50)
    assert tree.diff(pure, donated) == []
    if case.name != "transformer":  # whose attention draws its dropout in another order
        assert_close(pure, run(program, case, 50), rtol=1e-3, atol=1e-4)


@pytest.mark.sweep("options")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize(
    "options",
    [
        {"clip_norm": 0.1, "ema": ft.EMA(0.9, every=3), "accumulate": 2},
        {"nonfinite": "skip", "precision": "bf16"},
        {"nonfinite": "ignore", "clip_value": 0.01},
        {"precision": "fp16", "ema": 0.9},
    ],
    ids=["accumulated", "bf16", "ignored", "fp16"],
)
def test_the_graph_of_a_step_is_the_step(case: Case, options: Any) -> None:
    supported = {None: True, "bf16": torch.ops.mkldnn._is_mkldnn_bf16_supported()}
    if case.name == "lstm" and not supported.get(options.get("precision")):
        pytest.skip("oneDNN has no LSTM in half precision here, so there is no eager step")
    eager = case.program(CALM, **options)
    graph = ft.compiled(eager, backend="eager")
    exact = "precision" not in options
    expected = state = eager.init()
    for index in range(6):
        data = case.batch(index, 6)
        before = ft.copy(state)
        following, metrics = graph.train_step(state, data)
        assert tree.diff(before, state) == []
        expected, expected_metrics = eager.train_step(expected, data)
        assert metrics.keys() == expected_metrics.keys()
        state = following
    tolerance = 1e-5 if exact else 3e-2
    assert_close(state, expected, rtol=tolerance, atol=tolerance)


def test_two_hundred_steps_are_one_compilation() -> None:
    backend = CountingBackend()
    schedule = ft.schedules.Cosine(0.1, steps=200)
    optimizer = ft.optim.groups([("*.bias", ft.optim.SGD(lr=0.1)), ("*", ft.optim.Adam(schedule))])
    program = compiled(backend=backend, optimizer=optimizer, ema=ft.EMA(0.9, every=7))
    state = program.init()
    for _ in range(200):
        state, _ = program.train_step(state, batch())
    state = attrs.evolve(state, counters=state.counters.next_epoch())
    ft.donated(program).train_step(state, batch())
    assert backend.count == 1


def test_a_short_last_batch_is_one_more_compilation() -> None:
    backend = CountingBackend()
    program = compiled(backend=backend)
    state = program.init()
    for size in (5, 5, 3, 5, 3):
        state, metrics = program.train_step(state, batch(size))
        assert torch.isfinite(metrics["loss"])
    assert (backend.count, state.counters.samples) == (2, 21)


def test_numbers_and_strings_in_a_batch_are_part_of_the_graph() -> None:
    def loss(model: nn.Module, given: dict[str, Any]) -> Tensor:
        return model(given["x"]).square().mean() * (2.0 if given["task"] == "double" else 1.0)

    program = compiled(loss)
    state = program.init()
    once, twice, again = (
        program.train_step(state, {"x": batch()[0], "task": task})[1]["loss"]
        for task in ("single", "double", "single")
    )
    assert twice == 2 * once
    assert again == once


def test_many_forms_of_batch_raise_a_warning() -> None:
    program = compiled()
    state = program.init()
    for size in range(2, 10):
        program.train_step(state, batch(size))
    with pytest.warns(RecompileWarning, match="drop the last batch"):
        program.train_step(state, batch(10))


def test_a_state_of_another_dtype_has_a_graph_of_its_own() -> None:
    program = compiled(mean_square, optimizer=ft.optim.SGD(0.1))
    single = program.init()
    double = attrs.evolve(single, params={p: t.double() for p, t in single.params.items()})
    x = batch()[0]
    for state, data in ((single, x), (double, x.double()), (single, x)):
        after, _ = program.train_step(state, data)
        assert {t.dtype for t in after.params.values()} == {data.dtype}


def test_leaves_that_share_memory_do_not_write_over_each_other() -> None:
    def program() -> ft.Program:
        model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
        return ft.program(model, mean_square, ft.optim.SGD(0.1))

    eager = program()
    graph = ft.donated(ft.compiled(eager, backend="eager"))
    state = eager.init()
    shared = attrs.evolve(state, params={**state.params, "1.weight": state.params["0.weight"]})
    expected, _ = eager.train_step(shared, batch()[0])
    found, _ = graph.train_step(shared, batch()[0])
    assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_a_parameter_the_loss_does_not_reach_is_left_alone() -> None:
    model = nn.ModuleDict({"used": nn.Linear(6, 3), "unused": nn.Linear(2, 2)})
    program = compiled(lambda m, x: m["used"](x).square().mean(), model)
    state, _ = program.train_step(program.init(), batch()[0])
    before = program.init().params
    assert torch.equal(state.params["unused.weight"], before["unused.weight"])
    assert not torch.equal(state.params["used.weight"], before["used.weight"])


def test_random_numbers_are_a_function_of_the_state() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 32), nn.Dropout(0.5), nn.Linear(32, 3))
    program = compiled(model=model)
    state = program.init()
    before = torch.get_rng_state()
    first, _ = program.train_step(state, batch())
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(99)
    second, _ = program.train_step(state, batch())
    third, _ = program.train_step(attrs.evolve(state, rng=type(state.rng)(1)), batch())
    assert tree.diff(first, second) == []
    assert tree.diff(first.params, third.params) != []


def test_neither_the_batch_nor_metrics_are_written_over() -> None:
    class Writing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(6, 3)
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            x.mul_(2)
            self.seen += 1
            return self.linear(x)

    def loss(model: Any, x: Tensor) -> ft.Loss:
        return ft.Loss(model(x).square().mean(), metrics={"seen": model.seen})

    program = ft.donated(compiled(loss, Writing()))
    x = batch()[0]
    given = x.clone()
    state, first = program.train_step(program.init(), x)
    _, second = program.train_step(state, x)
    assert torch.equal(x, given)
    assert (first["seen"], second["seen"]) == (1, 2)


def test_a_rate_that_stays_and_then_changes_is_the_rate_of_each_step() -> None:
    rates = [0.5, 0.5, 0.0, 0.25]  # the first two are one object
    model = nn.Linear(6, 3, bias=False)

    def weights(program: ft.Program) -> Tensor:
        state = program.init()
        for _ in rates:
            state, _ = program.train_step(state, batch())
        return state.params["weight"]

    schedule = ft.schedules.Lambda(lambda step: rates[step])
    program = ft.program(model, classify, ft.optim.SGD(lr=schedule))
    found = weights(ft.donated(ft.compiled(program, backend="eager")))
    torch.testing.assert_close(found, weights(program))


def test_a_tree_is_its_tensors_and_its_builder() -> None:
    a, b, c, d = (torch.tensor(float(number)) for number in range(4))
    node = {"all": {"a": a, "b": b}, "none": {}, "some": {"c": c, "n": None}, "in": [(1, d), "x"]}
    assert [leaf.item() for leaf in inputs.flatten(node)] == [0, 1, 2, 3]
    build = inputs.builder(node)
    for first in (10.0, 20.0):  # a builder keeps nothing of a call
        given = iter(torch.arange(first, first + 5))
        built = build(given)
        assert [leaf.item() for leaf in inputs.flatten(built)] == [first + one for one in range(4)]
        assert next(given) == first + 4  # no more was taken than it has
        assert tree.diff(node, inputs.with_tensors(built, iter((a, b, c, d)))) == []


@pytest.mark.parametrize("donates", [False, True])
def test_a_step_that_raises_changes_nothing(donates: bool) -> None:
    program = compiled(ema=0.9)
    program = ft.donated(program) if donates else program
    state, _ = program.train_step(program.init(), batch())
    before = ft.copy(state)
    x, y = batch()
    with pytest.raises(NonFiniteError, match=r"0\.weight"):
        program.train_step(state, (x * float("nan"), y))
    assert tree.diff(before, state) == []


class TestWhatIsNoGraph:
    def test_the_line_of_the_user_is_named(self) -> None:
        class Branching(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.linear = nn.Linear(6, 3)

            def forward(self, x: Tensor) -> Tensor:
                if x.sum() > 0:  # the line at fault
                    x = -x
                return self.linear(x)

        program = compiled(model=Branching())
        with pytest.raises(CaptureError, match=r"the line at fault") as caught:
            program.train_step(program.init(), batch())
        assert caught.value.where is not None
        assert caught.value.where.startswith(str(Path(__file__)))
        assert ", in forward: " in caught.value.where
        assert "fallback=True" in str(caught.value)

    @pytest.mark.parametrize(
        "metric",
        [
            lambda logits: logits.mean().item(),
            lambda logits: float(logits.detach().numpy().mean()),
            lambda logits: logits[logits > 0].mean(),
        ],
    )
    def test_values_cannot_be_looked_at(self, metric: Any) -> None:
        def loss(model: nn.Module, given: Any) -> ft.Loss:
            logits = model(given[0])
            return ft.Loss(logits.square().mean(), metrics={"metric": metric(logits)})

        program = compiled(loss)
        with pytest.raises(CaptureError, match=r"test_compiled\.py:"):
            program.train_step(program.init(), batch())

    def test_fallback_runs_it_eagerly_and_says_so_once(self) -> None:
        def loss(model: nn.Module, given: Any) -> Tensor:
            value = model(given[0]).square().mean()
            return value * 2 if value.item() > 0 else value

        eager = ft.program(network(), loss, ft.optim.SGD(0.1))
        program = ft.donated(ft.compiled(eager, backend="eager", fallback=True))
        expected, _ = eager.train_step(eager.init(), batch())
        with pytest.warns(FallbackWarning, match="runs eagerly") as found:
            state, _ = program.train_step(program.init(), batch())
        assert tree.diff(state, expected) == []
        program.train_step(state, batch())
        assert len(found) == 1

    @pytest.mark.parametrize("draw", [random.random, np.random.rand])
    def test_random_numbers_of_python_and_numpy_are_noticed(self, draw: Any) -> None:
        program = compiled(lambda model, given: model(given[0]).mean() * draw())
        before = random.getstate(), np.random.get_state()[2]
        with pytest.raises(CaptureError, match="were drawn"):
            program.train_step(program.init(), batch())
        assert (random.getstate(), np.random.get_state()[2]) == before

    def test_errors_of_the_loss_are_those_of_an_eager_step(self) -> None:
        program = compiled(lambda model, given: model(given[0]))
        with pytest.raises(LossError, match="must be a scalar"):
            program.train_step(program.init(), batch())

    def test_a_failing_backend_is_named(self) -> None:
        def broken(graph: Any, inputs: Any) -> Any:
            raise RuntimeError("no compiler")

        program = compiled(backend=broken)
        with pytest.raises(CompilationError, match="no compiler"):
            program.train_step(program.init(), batch())

    def test_the_rule_of_an_optimizer_of_from_torch_is_refused(self) -> None:
        adam = ft.optim.from_torch(torch.optim.Adam, lr=0.1)
        wrapped = ft.optim.groups([("*bias", ft.optim.SGD(0.1)), ("*", ft.optim.Lookahead(adam))])
        with pytest.raises(ConfigurationError, match="cannot take an optimizer of from_torch"):
            compiled(optimizer=wrapped, update="graph")
        with pytest.raises(ConfigurationError, match="expected 'kernel' or 'graph'"):
            compiled(update="rule")

    def test_a_compiled_program_is_not_compiled_again(self) -> None:
        with pytest.raises(ConfigurationError, match="takes an eager program"):
            ft.compiled(compiled())


def test_a_part_that_the_user_compiled_becomes_part_of_the_graph() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 3))
    eager = ft.program(model, classify, ft.optim.SGD(0.1))
    inner = torch.compile(lambda m, x: m(x), fullgraph=True)
    graph = compiled(
        lambda m, given: classify(lambda x: inner(m, x), given), model, optimizer=ft.optim.SGD(0.1)
    )
    expected, _ = eager.train_step(eager.init(), batch())
    found, _ = graph.train_step(graph.init(), batch())
    assert_close(found, expected, rtol=1e-6, atol=1e-7)


RUN = """
import sys, torch, functrain as ft
from torch import nn
directory, until, mode = sys.argv[1:]
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1))
loss = lambda model, batch: model(batch).square().mean()
program = ft.program(model, loss, ft.optim.AdamW(ft.schedules.Cosine(0.1, steps=9)), ema=0.9)
data = ft.data.Batches(torch.randn(12, 3), 4)
program = ft.compiled(program, mode=mode or None)
run = ft.fit(program, data, until=f"{until} steps", directory=directory)
"""


def in_a_process(directory: Path, until: int, mode: str, fresh: bool = False) -> None:
    """Train in a process; a fresh interpreter has hashes of its own."""
    arguments = ["-c", RUN, str(directory), str(until), mode]
    env = {**os.environ, "FUNCTRAIN_CACHE_DIR": str(directory.parent / "cache")}
    if fresh:
        command = [sys.executable, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=env)
    else:
        done = processes.run(*arguments, env=env)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("ahead", [True, False], ids=["ahead", "in memory"])
def test_a_compiled_run_goes_on_in_another_process_bit_for_bit(tmp_path: Path, ahead: bool) -> None:
    mode = "" if ahead else "default"  # to name a mode is to say how to compile
    in_a_process(tmp_path / "parts", 4, mode)
    libraries = {path: path.stat().st_ino for path in tmp_path.glob("cache/compiled/*")}
    in_a_process(tmp_path / "parts", 9, mode, fresh=True)
    in_a_process(tmp_path / "whole", 9, mode)
    whole, parts = (ft.Checkpoints(tmp_path / name) for name in ("whole", "parts"))
    assert tree.diff(whole.restore()[0], parts.restore()[0]) == []
    logs = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "parts")]
    assert logs[0] == logs[1]
    # Outside of the run; nothing was compiled again.
    assert not (tmp_path / "parts" / "compiled").exists()
    assert sorted(path.suffix for path in libraries) == ([".pt2"] if ahead else [])
    found = {path: path.stat().st_ino for path in tmp_path.glob("cache/compiled/*")}
    assert libraries == found


def test_a_run_that_goes_on_with_another_transformation_says_so(tmp_path: Path) -> None:
    program = compiled(mean_square)
    data = [batch()[0]] * 3
    ft.fit(program, data, until="1 epoch", directory=tmp_path)
    ft.fit(ft.donated(program), data, until="2 epochs", directory=tmp_path)
    eager = ft.program(network(), program.recipe.loss, ft.optim.AdamW(lr=1e-2))
    with pytest.warns(RecipeChangedWarning, match=r"step: 'compiled\(eager\)' in the checkpoint"):
        ft.fit(eager, data, until="3 epochs", directory=tmp_path)


@pytest.mark.slow
@pytest.mark.long
def test_a_gradient_that_is_another_parameter_is_its_old_value() -> None:
    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = (nn.Parameter(torch.arange(3.0) + one) for one in range(2))

    eager = ft.program(Product(), lambda m, x: (m.a * m.b).sum(), ft.optim.SGD(0.1))
    graph = ft.donated(ft.compiled(eager))
    state, expected = graph.init(), eager.init()
    for _ in range(3):
        state, _ = graph.train_step(state, torch.ones(1))
        expected, _ = eager.train_step(expected, torch.ones(1))
    assert_close(state, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("donates", [False, True])
def test_the_rule_of_the_optimizer_as_a_graph(donates: bool) -> None:
    backend = CountingBackend()
    model = nn.ModuleDict({"used": nn.Linear(6, 3), "unused": nn.Linear(2, 2)})
    eager = ft.program(
        model, lambda m, x: m["used"](x).square().mean(), ft.optim.AdamW(lr=1e-2), ema=0.9
    )
    graph = ft.compiled(eager, backend=backend, update="graph")
    graph = ft.donated(graph) if donates else graph
    state, expected = graph.init(), eager.init()
    for _ in range(4):
        state, _ = graph.train_step(state, batch()[0])
        expected, _ = eager.train_step(expected, batch()[0])
    assert_close(state, expected, rtol=1e-5, atol=1e-6)
    # The first update is eager: it counts apart for parameters that have no gradient.
    assert backend.count == 2


def test_a_mode_brings_no_cuda_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next step overwrites their results, and a state may be kept."""
    seen: list[tuple[bool, bool]] = []

    def noted(graph: Any, inputs: Any, **_: Any) -> Any:
        config = torch._inductor.config
        seen.append((config.triton.cudagraphs, config.max_autotune))
        return graph

    monkeypatch.setattr(torch._inductor, "standalone_compile", noted)
    for mode in ("reduce-overhead", "max-autotune"):
        program = compiled(backend="inductor", mode=mode)
        program.train_step(program.init(), batch())
    assert seen == [(False, False), (False, True)]
