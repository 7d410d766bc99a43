"""Several steps in one call, compared bit by bit with as many calls of ``train_step``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest
import torch
from models import CASES, Case, classify
from torch import Tensor, nn

import functrain as ft
from functrain import tree
from functrain.errors import (
    ConfigurationError,
    DonatedStateError,
    EmptyBatchWarning,
    NonFiniteError,
    ScheduleEndedWarning,
    UnsupportedError,
)

Transformation = Callable[[ft.Program], ft.Program]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3)
    )


def batches(count: int, sizes: tuple[int, ...] = (5,), seed: int = 0) -> list[Any]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [sizes[index % len(sizes)] for index in range(count)]
    return [
        (torch.randn(n, 6, generator=generator), torch.randint(0, 3, (n,), generator=generator))
        for n in shapes
    ]


def program(optimizer: Any = None, loss: Any = classify, **options: Any) -> ft.Program:
    return ft.program(network(), loss, optimizer or ft.optim.AdamW(lr=1e-2), **options)


def graph(program: ft.Program) -> ft.Program:
    """The graph, uncompiled: the loop around it is what is tested here."""
    return ft.compiled(program, backend="eager")


def donated_graph(program: ft.Program) -> ft.Program:
    return ft.donated(graph(program))


WAYS: dict[str, Transformation] = {
    "eager": lambda program: program,
    "donated": ft.donated,
    "compiled": graph,
    "compiled and donated": donated_graph,
}


def one_by_one(
    program: ft.Program, state: ft.TrainState, given: list[Any]
) -> tuple[ft.TrainState, dict[str, Tensor]]:
    rows = []
    for batch in given:
        state, metrics = program.train_step(state, batch)
        rows.append(metrics)
    return state, {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def assert_same(program: ft.Program, given: list[Any]) -> ft.TrainState:
    expected, rows = one_by_one(program, program.init(), given)
    begun = program.init()
    found, metrics = ft.steps(program, begun, given)
    assert tree.diff(expected, found) == []
    assert list(metrics) == list(rows)
    assert tree.diff(rows, metrics) == []
    if not program.donates:
        assert tree.diff(begun, program.init()) == []
    return found


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "clipped and averaged": {"clip_norm": 0.1, "ema": ft.EMA(0.9, every=3)},
    "accumulated": {"accumulate": 2, "ema": 0.9},
    "skip": {"nonfinite": "skip"},
    "ignore": {"nonfinite": "ignore", "clip_value": 0.01},
    "fp16": {"precision": "fp16"},
    "part": {"trainable": ["4.*"]},
    "cosine": {"optimizer": ft.optim.SGD(ft.schedules.Cosine(0.1, steps=20), momentum=0.9)},
    "groups": {
        "optimizer": ft.optim.groups(
            [
                ("*.bias", ft.optim.SGD(lr=0.1)),
                ("*", ft.optim.Adam(ft.schedules.Linear(0.1, 0.01, 9))),
            ]
        )
    },
    "plateau": {
        "optimizer": ft.optim.SGD(
            ft.schedules.Plateau(0.1, patience=0, factor=0.5, observes="step")
        )
    },
}

COMPILED = ("plain", "accumulated")
GRAPHS = {
    "compiled": COMPILED,
    "compiled and donated": (
        *COMPILED,
        "clipped and averaged",
        "skip",
        "fp16",
        "groups",
        "plateau",
    ),
}


@pytest.mark.parametrize(
    ("way", "options"),
    [
        # Both ways to compile have one graph: most options with one of them, some with the other.
        pytest.param(
            way,
            options,
            marks=[pytest.mark.long] if options not in GRAPHS.get(way, OPTIONS) else [],
        )
        for way in WAYS
        for options in OPTIONS
    ],
)
def test_steps_are_as_many_calls(way: str, options: str) -> None:
    made = WAYS[way](program(**OPTIONS[options]))
    found = assert_same(made, batches(7, sizes=(5, 5, 4)))
    assert found.counters.step == 7


@pytest.mark.sweep
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_steps_of_every_model_are_as_many_calls(case: Case) -> None:
    made = donated_graph(case.program(ft.optim.AdamW(lr=1e-2), clip_norm=0.5))
    assert_same(made, [case.batch(index, 6) for index in range(4)])


@pytest.mark.long
def test_steps_of_a_compiled_program_are_as_many_calls() -> None:
    made = ft.donated(ft.compiled(program(clip_norm=0.1)))
    assert_same(made, batches(5, sizes=(5, 5, 5, 5, 3)))


def test_steps_go_on_where_others_have_ended() -> None:
    made = donated_graph(program(ema=0.9))
    given = batches(9)
    expected, _ = one_by_one(made, made.init(), given)
    state, _ = ft.steps(made, made.init(), given[:4])
    state, _ = made.train_step(state, given[4])
    state, _ = ft.steps(made, state, iter(given[5:]))
    assert tree.diff(expected, state) == []


@pytest.mark.parametrize("way", ["eager", "compiled"])
def test_the_states_in_between_share_no_memory_with_the_given_one(way: str) -> None:
    made = WAYS[way](program(trainable=["4.*"], ema=0.9))
    begun = made.init()
    kept = ft.copy(begun)
    states = [begun]
    for _ in range(3):
        states.append(ft.steps(made, states[-1], batches(3))[0])
    again = [ft.steps(made, state, batches(3))[0] for state in states[:-1]]
    assert tree.diff(begun, kept) == []
    assert tree.diff(again, states[1:]) == []


def test_a_donated_state_is_consumed() -> None:
    made = donated_graph(program())
    begun = made.init()
    ft.steps(made, begun, batches(2))
    with pytest.raises(DonatedStateError):
        begun.params  # noqa: B018


@pytest.mark.parametrize("way", WAYS)
def test_no_steps_leave_a_state_as_it_is(way: str) -> None:
    made = WAYS[way](program())
    state = made.init()
    found, metrics = ft.steps(made, state, [])
    assert tree.diff(found, made.init()) == []
    assert {name: values.shape for name, values in metrics.items()} == {
        "loss": (0,),
        "lr": (0,),
        "grad_norm": (0,),
    }


def poisoned(given: list[Any], index: int) -> list[Any]:
    x, y = given[index]
    return [*given[:index], (x * float("nan"), y), *given[index + 1 :]]


@pytest.mark.parametrize("way", WAYS)
def test_a_step_that_is_not_finite_is_named(way: str) -> None:
    made = WAYS[way](program())
    expected = one_by_one(made, made.init(), batches(8))[0]
    begun = made.init()
    with pytest.raises(NonFiniteError, match="step 5") as caught:
        ft.steps(made, begun, poisoned(batches(8), 5))
    with pytest.raises(NonFiniteError) as alone:
        one_by_one(made, made.init(), poisoned(batches(8), 5))
    assert str(caught.value) == str(alone.value)
    if not made.donates:
        assert tree.diff(ft.steps(made, begun, batches(8))[0], expected) == []


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("options", [{"nonfinite": "skip"}, {"precision": "fp16"}], ids=str)
def test_steps_that_are_not_finite_are_counted(way: str, options: Any) -> None:
    options = {"nonfinite": "skip", **options}
    made = WAYS[way](program(**options))
    found = assert_same(made, poisoned(batches(6), 3))
    assert found.counters.skipped == 1


@pytest.mark.parametrize("way", ["eager", "compiled and donated"])
def test_a_batch_without_samples_is_counted(way: str) -> None:
    made = WAYS[way](program())
    empty = (torch.zeros(0, 6), torch.zeros(0, dtype=torch.int64))
    given = [*batches(3), empty, *batches(2)]
    with pytest.warns(EmptyBatchWarning):
        found, metrics = ft.steps(made, made.init(), given)
    with pytest.warns(EmptyBatchWarning):
        *_, (expected, _) = ft.iterate(made, made.init(), given)
    expected = attrs.evolve(expected, counters=attrs.evolve(expected.counters, epoch=0, batch=6))
    assert tree.diff(found, expected) == []
    assert found.counters.empty == 1
    assert metrics["loss"].isnan().tolist() == [False, False, False, True, False, False]
    assert metrics["accuracy"].isnan().tolist() == [False, False, False, True, False, False]


def test_only_empty_batches_are_no_steps() -> None:
    made = program()
    empty = (torch.zeros(0, 6), torch.zeros(0, dtype=torch.int64))
    with pytest.warns(EmptyBatchWarning):
        state, metrics = ft.steps(made, made.init(), [empty, empty])
    assert (state.counters.step, state.counters.empty) == (0, 2)
    assert metrics["loss"].isnan().tolist() == [True, True]


def test_the_end_of_a_schedule_is_reported() -> None:
    made = donated_graph(program(ft.optim.SGD(ft.schedules.Linear(0.1, 0.0, 4))))
    with pytest.warns(ScheduleEndedWarning):
        ft.steps(made, made.init(), batches(6))


def test_metrics_that_only_some_steps_report_are_nan_elsewhere() -> None:
    def loss(model: nn.Module, batch: Any) -> ft.Loss:
        value = classify(model, batch).value
        return ft.Loss(value, metrics={"few": value.detach()} if len(batch[0]) < 4 else {})

    made = program(loss=loss)
    _, metrics = ft.steps(made, made.init(), batches(3, sizes=(5, 3)))
    assert metrics["few"].isnan().tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("given", "got"),
    [
        (torch.zeros(3, 5, 6), "Tensor"),
        ({"x": torch.zeros(3, 6)}, "dict"),
        (ft.MicroBatches(batches(2)), "MicroBatches"),
        (3, "int"),
        ("batches", "str"),
    ],
    ids=["tensor", "dict", "micro-batches", "number", "text"],
)
def test_what_is_no_series_of_batches_is_refused(given: Any, got: str) -> None:
    made = program()
    with pytest.raises(ConfigurationError, match=rf"batches: expected .*, got a {got}"):
        ft.steps(made, made.init(), given)


def test_what_is_no_state_is_refused() -> None:
    made = program()
    with pytest.raises(UnsupportedError, match="expected a TrainState"):
        ft.steps(made, made.init().params, batches(2))  # type: ignore[arg-type]
    with pytest.raises(UnsupportedError, match="expected a TrainState"):
        ft.steps(made, made.init().params, [])  # type: ignore[arg-type]


def test_batches_may_view_the_state() -> None:
    """A graph writes over the state; a batch in the same memory must keep its values."""

    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        return (model(batch) - 1).square().mean()

    torch.manual_seed(0)
    made = donated_graph(ft.program(nn.Linear(4, 4), loss, ft.optim.SGD(lr=0.1)))

    def run(state: ft.TrainState, views: bool) -> ft.TrainState:
        weight = state.params["weight"]
        return ft.steps(made, state, [weight if views else weight.clone()] * 3)[0]

    assert tree.diff(run(made.init(), True), run(made.init(), False)) == []


def test_a_loss_that_fails_names_the_step() -> None:
    made = program()

    def given() -> Iterator[Any]:
        yield from batches(2)
        yield torch.zeros(5, 7), torch.zeros(5, dtype=torch.int64)

    with pytest.raises(RuntimeError) as caught:
        ft.steps(made, made.init(), given())
    assert "in the step after step 2" in "\n".join(caught.value.__notes__)


def test_a_tuple_of_tensors_may_be_one_batch_and_is_refused() -> None:
    def loss(model: nn.Module, batch: Any) -> Tensor:
        x, y = batch
        return (model(x) - y).square().mean()

    program = ft.program(nn.Linear(2, 2), loss, ft.optim.SGD(lr=0.1))
    pair = (torch.ones(2, 2), torch.zeros(2, 2))  # each of them also unpacks into two rows
    with pytest.raises(ConfigurationError, match=r"\[\(x, y\)\] if it is one batch"):
        ft.steps(program, program.init(), pair)
    state, _ = ft.steps(program, program.init(), [pair])
    assert state.counters.step == 1
