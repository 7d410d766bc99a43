"""Row 44: monitors log memory, gradient norms and update ratios without changing training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import data, fit, loss, model, program
from torch import nn

import functrain as ft
from functrain import tree
from functrain.core.inspection import gradients
from functrain.core.state import params_of
from functrain.errors import ConfigurationError, EmptyBatchWarning
from functrain.listeners import (
    CSV,
    JSONL,
    GradientMonitor,
    MemoryMonitor,
    ThroughputMonitor,
    UpdateMonitor,
)

pytestmark = pytest.mark.row(44)


def test_group_norms_add_up_to_the_norm_of_the_step() -> None:
    monitor = GradientMonitor(program(), "3 steps", {"biases": "*.bias", "rest": "*"})
    run = fit([monitor])
    for row in run.history.rows:
        due = row["step"] % 3 == 0
        assert ("grad_norm.rest" in row) == due
        if due:
            both = (row["grad_norm.biases"] ** 2 + row["grad_norm.rest"] ** 2) ** 0.5
            assert both == pytest.approx(row["grad_norm"], rel=1e-6)


def test_by_default_the_groups_are_the_models_children() -> None:
    run = fit([GradientMonitor(program(), "1 step")], until="1 step")
    assert {"grad_norm.0", "grad_norm.1", "grad_norm.3"} <= run.history.rows[0].keys()


def test_update_ratios_match_the_weights() -> None:
    run = fit([UpdateMonitor(program(), "4 steps", {"head": "3.*"})], until="8 steps")
    states = {0: program().init()}
    for state, _ in ft.iterate(program(), states[0], data(), until="8 steps"):
        states[state.counters.step] = state
    for step, ratio in zip(*run.history.column("update_ratio.head"), strict=True):
        before, after = (
            torch.cat([states[at].params[f"3.{name}"].flatten() for name in ("weight", "bias")])
            for at in (step - 1, step)
        )
        assert ratio == pytest.approx(((after - before).norm() / before.norm()).item(), rel=1e-5)
    assert run.history.column("update_ratio.head")[0] == [4, 8]


def test_peak_memory_of_the_process_is_logged() -> None:
    psutil = pytest.importorskip("psutil")
    run = fit([MemoryMonitor("5 steps")])
    steps, found = run.history.column("memory/host")
    assert steps == [5, 10, 15, 20]
    assert found[-1] >= psutil.Process().memory_info().rss * 0.9
    assert found == sorted(found)


def test_throughput_is_that_of_the_steps_since_the_last_time() -> None:
    seconds = iter([0.0, 2.0, 10.0])
    monitor = ThroughputMonitor("5 steps", lambda batch: 7, clock=lambda: next(seconds))
    run = fit([monitor], until="10 steps")
    samples = [row["samples_per_second"] for row in run.history if "samples_per_second" in row]
    assert samples == [20 / 2, 18 / 8]  # the last batch of an epoch has two samples
    assert run.history.column("tokens_per_second") == ([5, 10], [35 / 2, 35 / 8])


def test_tokens_are_those_of_all_batches_of_a_step() -> None:
    seconds = iter(range(100))
    monitor = ThroughputMonitor("1 step", torch.numel, clock=lambda: next(seconds))
    loss = lambda model, batch: model(batch).mean()  # noqa: E731
    made = ft.program(nn.Linear(2, 1), loss, ft.optim.SGD(0.1), accumulate=2)
    data = ft.data.Batches(torch.ones(10, 2), 4)
    run = ft.fit(made, data, until="1 epoch", listeners=[monitor], progress=False)
    assert run.history.column("tokens_per_second") == ([1, 2], [16, 4])


def test_monitors_do_not_change_training_bitwise() -> None:
    made = program()
    monitors = [MemoryMonitor("2 steps"), GradientMonitor(made, "1 step"), UpdateMonitor(made)]
    monitors.append(ThroughputMonitor("2 steps"))
    with_them, without = fit([*monitors, UpdateMonitor(made, "1 step", {"x": "*"})]), fit()
    assert tree.diff(with_them.state, without.state) == []
    measured = ("memory/", "epoch/memory/", "grad_norm.", "epoch/grad_norm.", "update_ratio.")
    measured += ("epoch/update_ratio.", "samples_per_second", "epoch/samples_per_second")
    rows = [
        {name: value for name, value in row.items() if not name.startswith(measured)}
        for row in with_them.history
    ]
    assert rows == without.history.rows


def test_only_a_monitored_step_is_not_made_in_place() -> None:
    places: list[int] = []

    class Look:
        def on_batch_end(self, event: Any) -> None:
            places.append(params_of(event.state)["0.weight"].data_ptr())

    fit([UpdateMonitor(program(), "4 steps"), Look()], until="7 steps")
    moved = [step for step in range(1, 7) if places[step] != places[step - 1]]
    assert moved == [3]  # the fourth


def test_monitored_values_reach_log_and_sinks(tmp_path: Path) -> None:
    sink = JSONL(tmp_path / "some.jsonl")
    fit([GradientMonitor(program(), "2 steps"), sink, CSV(tmp_path / "a.csv")], directory=tmp_path)
    assert b"grad_norm.0" in (tmp_path / "metrics.jsonl").read_bytes()
    assert (tmp_path / "some.jsonl").read_bytes() == (tmp_path / "metrics.jsonl").read_bytes()
    assert "grad_norm.0" in (tmp_path / "a.csv").read_text()


def test_a_batch_without_samples_is_skipped() -> None:
    made = ft.program(model, loss, ft.optim.SGD(lr=0.1))
    batches = [(torch.zeros(n, 4), torch.zeros(n, 1)) for n in (3, 0, 2)]
    monitors = [GradientMonitor(made, "1 step"), UpdateMonitor(made, "1 step")]
    with pytest.warns(EmptyBatchWarning):
        run = ft.fit(made, batches, until="1 epoch", listeners=monitors)
    assert run.history.column("grad_norm.0")[0] == [1, 2]
    assert run.history.column("update_ratio.0")[0] == [1, 2]


def test_mistakes_are_errors_when_a_monitor_is_created() -> None:
    with pytest.raises(ConfigurationError, match=r'takes steps.*got "1 epoch"'):
        GradientMonitor(program(), "1 epoch")
    with pytest.raises(ConfigurationError, match=r"'heads'.*'3.wieght'.*did you mean '3.weight'"):
        UpdateMonitor(program(), groups={"heads": "3.wieght"})


@pytest.mark.parametrize("accumulate", [1, 2])
def test_gradients_are_what_sgd_with_a_rate_of_one_subtracts(accumulate: int) -> None:
    made = ft.program(model, loss, ft.optim.SGD(lr=1.0), accumulate=accumulate)
    state, batch = made.init(seed=5), (torch.randn(6, 4), torch.randn(6, 1))
    kept, x, generator = ft.copy(state), batch[0].clone(), torch.get_rng_state()
    found = gradients(made, state, batch)
    assert tree.diff(state, kept) == []
    assert torch.equal(batch[0], x)
    assert torch.equal(torch.get_rng_state(), generator)
    after, _ = made.train_step(state, batch)
    for path, gradient in found.items():
        assert torch.equal(after.params[path], state.params[path] - gradient), path
    assert found.keys() == state.params.keys()


def test_gradients_are_unclipped_and_of_trainable_parameters_only() -> None:
    options = {"clip_norm": 1e-3, "trainable": ["3.*"]}
    made = ft.program(model, loss, ft.optim.SGD(lr=1.0), **options)
    state, batch = made.init(), (torch.randn(6, 4), torch.randn(6, 1))
    found = gradients(made, state, batch)
    _, seen = made.train_step(state, batch)
    assert found.keys() == {"3.weight", "3.bias"}
    norm = torch.stack([g.norm() for g in found.values()]).norm()
    assert norm.item() == pytest.approx(seen["grad_norm"].item(), rel=1e-6)


def test_gradients_equal_those_of_plain_pytorch() -> None:
    plain = nn.Linear(4, 1)
    made = ft.program(plain, lambda m, b: m(b).square().mean(), ft.optim.SGD(lr=0.1))
    x = torch.randn(5, 4)
    plain(x).square().mean().backward()
    found = gradients(made, made.init(), x)
    assert torch.equal(found["weight"], plain.weight.grad)
    assert torch.equal(found["bias"], plain.bias.grad)
