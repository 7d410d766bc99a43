"""Every model of the zoo: pure, the plain loop bit for bit, donated, resumed, captured."""

from __future__ import annotations

import json
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import processes
import pytest
import torch
from zoo.entry import Entry
from zoo.fresh import entries, stepped

import functrain as ft
from functrain import tree
from functrain.core.rng import derive, scoped

pytest.importorskip("transformers")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    ZOO = entries()
each = pytest.mark.parametrize("entry", ZOO, ids=lambda entry: entry.name)
CAPTURED = {
    *("GPT2", "Llama", "Mixtral", "Qwen2Moe", "Bert", "T5", "Bart", "ViT", "Swin"),
    *("ConvNext", "UNet2D", "x-transformers", "neural spline flow"),
}
STEPS = 5
# The other models are as many cases of the same code, and each takes the plain loop's steps below.
some = pytest.mark.parametrize(
    "entry",
    [
        pytest.param(one, id=one.name, marks=[] if one.name in CAPTURED else [pytest.mark.long])
        for one in ZOO
    ],
)


def everything_global() -> list[Any]:
    return [torch.get_rng_state(), random.getstate(), *map(str, np.random.get_state())]


@pytest.mark.row(1)
@some
def test_a_step_is_pure(entry: Entry) -> None:
    program = entry.program()
    state, batch = stepped(program, program.init(), entry, 1), entry.batch(7)
    given = batch.to_dict() if hasattr(batch, "to_dict") else batch
    before = tree.digest([state, given, *everything_global()])
    once, _ = program.train_step(state, batch)
    assert tree.digest([state, given, *everything_global()]) == before
    torch.rand(3), random.random(), np.random.rand(3)
    again, _ = program.train_step(state, batch)
    assert tree.diff(once, again) == []


@pytest.mark.row(3)
@each
def test_five_steps_are_the_plain_loop(entry: Entry) -> None:
    program = entry.program()
    state = stepped(program, program.init(0), entry, STEPS)
    module = plain_loop(entry)
    assert tree.diff(dict(state.params), named(module.named_parameters())) == []
    assert tree.diff(dict(state.buffers), named(module.named_buffers())) == []


def plain_loop(entry: Entry) -> torch.nn.Module:
    """Train in the way of everybody, with the random numbers of each step."""
    module = entry.module().train()
    params = [one for one in module.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(params, lr=1e-3, fused=True)
    for number in range(STEPS):
        batch = entry.batch(number)
        with scoped(derive(0, "step", number)):
            loss = entry.loss(module, batch)
            (loss.value if isinstance(loss, ft.Loss) else loss).backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return module


def named(tensors: Any) -> dict[str, torch.Tensor]:
    return {path: tensor.detach() for path, tensor in tensors}


@pytest.mark.row(51)
@pytest.mark.sweep
@each
def test_donated_is_pure(entry: Entry) -> None:
    program = entry.program()
    donating = ft.donated(program)
    expected = stepped(program, program.init(), entry, STEPS)
    assert tree.diff(stepped(donating, donating.init(), entry, STEPS), expected) == []


@pytest.mark.row(32)
@pytest.mark.long
@pytest.mark.slow
def test_all_go_on_in_a_fresh_process(tmp_path: Path) -> None:
    expected = {}
    for entry in ZOO:
        program = entry.program()
        state = stepped(program, program.init(0), entry, 3)
        ft.save(tmp_path / entry.name, state)
        expected[entry.name] = tree.digest(stepped(program, state, entry, STEPS))
    done = processes.run("-m", "zoo.fresh", str(tmp_path), str(STEPS))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == expected


@pytest.mark.row(50)
@pytest.mark.sweep
@pytest.mark.parametrize(
    "entry", [one for one in ZOO if one.name in CAPTURED], ids=lambda entry: entry.name
)
def test_a_captured_step_is_the_step(entry: Entry) -> None:
    program = entry.program()
    graph = ft.compiled(program, backend="eager")
    state = expected = program.init()
    for number in range(3):
        state, metrics = graph.train_step(state, entry.batch(number))
        expected, eager = program.train_step(expected, entry.batch(number))
        assert torch.allclose(metrics["loss"], eager["loss"], rtol=1e-4)
    for path, param in state.params.items():
        torch.testing.assert_close(param, expected.params[path], rtol=1e-3, atol=1e-4)


def test_there_are_enough_of_them() -> None:
    transformers = [one for one in ZOO if one.make.__module__ != "zoo.packages"]
    assert len(transformers) >= 30
    assert len(ZOO) - len(transformers) >= 10
