"""Outputs of a model over a data set: in order, on the host, refused where rows are not samples."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
)

import functrain as ft
from functrain.errors import ConfigurationError, EmptyDatasetError, UnsupportedError


def _program(**options: Any) -> ft.Program:
    def loss(model: nn.Module, batch: Any) -> Tensor:
        return (model(batch[0]) - batch[1]).square().mean()

    model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))
    return ft.program(model, loss, ft.optim.SGD(lr=0.1), **options)


def _data(count: int = 10) -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(
        torch.randn(count, 3, generator=generator), torch.randn(count, 2, generator=generator)
    )


@attrs.frozen
class _Output:
    logits: Tensor
    name: str = "logits"


def test_outputs_are_in_order_in_evaluation_mode_and_change_nothing() -> None:
    program, data = _program(), _data()
    state, _ = program.train_step(program.init(), data[:])
    before, generator = ft.copy(state), torch.get_rng_state()
    found = ft.predict(program, state, DataLoader(data, batch_size=4))
    with program.evaluating(state) as model:
        expected = model(data[:][0])
    torch.testing.assert_close(found, expected)
    assert not found.requires_grad
    assert ft.tree.equal(before, state)
    assert torch.equal(generator, torch.get_rng_state())


def test_the_average_is_used_where_it_is_asked_for() -> None:
    program, data = _program(ema=0.9), _data()
    state = program.init()
    for _ in range(3):
        state, _ = program.train_step(state, data[:])
    found = ft.predict(program, state, [data[:]], weights="ema")
    with program.evaluating(state, "ema") as model:
        assert torch.equal(found, model(data[:][0]))


def test_batches_that_are_tensors_and_batches_with_a_function() -> None:
    program, (x, _) = _program(), _data()[:]
    state = program.init()
    whole = ft.predict(program, state, [x])
    assert torch.equal(
        ft.predict(program, state, [{"x": x}], lambda model, b: model(b["x"])), whole
    )
    with pytest.raises(ConfigurationError, match=r"got a dict\. Say how to call the model"):
        ft.predict(program, state, [{"x": x}])


def test_outputs_in_containers_are_joined_part_by_part() -> None:
    program, (x, _) = _program(), _data()[:]

    def call(model: nn.Module, batch: Tensor) -> dict[str, Any]:
        logits = model(batch)
        return {"out": _Output(logits), "parts": (logits.argmax(-1), logits[:, 0])}

    found = ft.predict(program, program.init(), [x[:4], x[4:]], call)
    assert found["out"].logits.shape == (10, 2)
    assert found["out"].name == "logits"
    assert [part.shape for part in found["parts"]] == [(10,), (10,)]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model, x: model(x).mean(), r"one row for each of the 4 samples .* shape \[\]"),
        (lambda model, x: model(x).mean(0), r"one row for each of the 4 samples .* shape \[2\]"),
        (lambda model, x: model(x)[:, : len(x) // 3], r"rows alike .* \[4, 1\] .* \[6, 2\]"),
        (lambda model, x: {str(len(x)): model(x)}, "same parts in all batches"),
        (lambda model, x: len(x), "values of type int"),
        (lambda model, x: model(x) if len(x) == 4 else [model(x)], "Tensor and list"),
    ],
)
def test_outputs_that_cannot_be_joined_are_refused(call: Any, message: str) -> None:
    program, (x, _) = _program(), _data()[:]
    batches = [x[:4], x[4:]]
    with pytest.raises(ConfigurationError, match=f"{message}.*join=False"):
        ft.predict(program, program.init(), batches, call)
    assert len(ft.predict(program, program.init(), batches, call, join=False)) == 2


def test_empty_batches_give_no_rows() -> None:
    program, (x, _) = _program(), _data()[:]
    found = ft.predict(program, program.init(), [x[:4], x[:0], x[4:]])
    assert found.shape == (10, 2)
    with pytest.raises(EmptyDatasetError, match="no samples"):
        ft.predict(program, program.init(), [x[:0]])


def test_batches_are_read_in_the_order_of_the_dataset() -> None:
    program, data = _program(), _data()
    state = program.init()
    expected = ft.predict(program, state, DataLoader(data, batch_size=4))
    batches = ft.data.Batches(data, 4, drop_last=True)
    assert torch.equal(ft.predict(program, state, batches), expected)
    ahead = ft.data.prefetched(batches, device="cpu")
    assert torch.equal(ft.predict(program, state, ahead), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 4, "shuffle": True}, "draws samples by a RandomSampler"),
        ({"batch_size": 4, "drop_last": True}, "drop_last=True"),
        ({"batch_sampler": [[3, 1], [0, 2]]}, r"batch_sampler=list"),
        ({"batch_size": 4, "sampler": [9, 8]}, "draws samples by a list"),
        ({"batch_size": None, "sampler": [9, 8]}, "draws samples by a list"),
        ({"sampler": SequentialSampler(range(8))}, "draws 8 of 10 samples"),
        (
            {"batch_sampler": BatchSampler(RandomSampler(range(10)), 4, drop_last=False)},
            "draws samples by a RandomSampler",
        ),
        (
            {"batch_sampler": BatchSampler(SequentialSampler(range(10)), 4, drop_last=True)},
            "drop_last=True",
        ),
    ],
)
def test_a_loader_that_reorders_or_drops_samples_is_refused(
    options: dict[str, Any], message: str
) -> None:
    program, data = _program(), _data()
    with pytest.raises(ConfigurationError, match=message):
        ft.predict(program, program.init(), DataLoader(data, **options))


def test_a_batch_sampler_in_order_is_read() -> None:
    program, data = _program(), _data()
    batches = BatchSampler(SequentialSampler(data), 4, drop_last=False)
    expected = ft.predict(program, program.init(), DataLoader(data, batch_size=4))
    found = ft.predict(program, program.init(), DataLoader(data, batch_sampler=batches))
    assert torch.equal(found, expected)


def test_a_sampler_and_a_mixture_are_refused() -> None:
    program, data = _program(), _data()
    sampler = ft.data.ByLength([1] * 10, batch_size=4)
    for one in (
        ft.data.Batches(data, 4, sampler=sampler),
        ft.data.Mixture([ft.data.Batches(data, 4)]),
    ):
        with pytest.raises(ConfigurationError, match="in the order of its samples"):
            ft.predict(program, program.init(), one)


def test_lists_of_plain_values_are_columns() -> None:
    program, (x, _) = _program(), _data()[:]
    names = [str(n) for n in range(10)]
    batches = [{"x": x[:4], "name": names[:4]}, {"x": x[4:], "name": names[4:]}]
    call = lambda model, batch: {"out": model(batch["x"]), "name": batch["name"]}  # noqa: E731
    assert ft.predict(program, program.init(), batches, call)["name"] == names
    with pytest.raises(ConfigurationError, match="got a list of length 2"):
        ft.predict(program, program.init(), [x], lambda model, x: (model(x), ["a", "b"]))


def test_outputs_share_no_memory_with_the_state_or_the_model() -> None:
    workspace = torch.zeros(2, 2)
    program, (x, _) = _program(), _data()[:]
    state = program.init()

    def reused(model: nn.Module, batch: Tensor) -> Tensor:
        return workspace.copy_(model(batch))

    parts = [x[:2], x[2:4]]
    found = ft.predict(program, state, parts, reused)
    expected = ft.predict(program, state, parts)
    assert torch.equal(found, expected)
    weights = ft.predict(program, state, [x], lambda model, _: model[0].weight, join=False)
    weights[0].zero_()
    assert state.params["0.weight"].any()


def test_arguments_in_another_order_are_explained() -> None:
    program = _program()
    with pytest.raises(UnsupportedError, match="the state comes first"):
        ft.predict(program, [torch.ones(2, 3)], program.init())  # type: ignore[arg-type]
    run = ft.fit(program, [_data()[:]], until="1 step", progress=False)
    with pytest.raises(UnsupportedError, match=r"got a Run: give its state, run\.state"):
        ft.predict(program, run, [torch.ones(2, 3)])  # type: ignore[arg-type]
