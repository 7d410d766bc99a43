"""Drawn examples are valid, small, readable when printed, and pass the checks."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import torch
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st

import functrain as ft
from functrain import tree
from functrain.testing import Cut, check_pure, check_schedule, strategies
from functrain.testing.observed_calls import extents, overlaps
from functrain.training import events
from functrain.training.durations import Minutes

few = settings(
    max_examples=10, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
)


@pytest.mark.row(52)
@few
@given(case=strategies.cases(), data=st.data())
def test_any_drawn_program_is_pure(case: strategies.Case, data: st.DataObject) -> None:
    program = case.program()
    check_pure(program, program.init(), data.draw(strategies.batches(case.architecture)))


@few
@given(schedule=strategies.schedules(open_ended=True))
def test_drawn_schedules_are_pure(schedule: Any) -> None:
    check_schedule(schedule, 30)


@settings(few, max_examples=40)
@given(value=strategies.trees())
def test_drawn_trees_come_back_from_a_file(value: Any, tmp_path_factory: Any) -> None:
    path = tmp_path_factory.mktemp("tree") / "value"
    ft.save(path, value)
    assert tree.diff(value, ft.load(path)) == []


def test_trees_have_aliases_and_views() -> None:
    def doubled(value: Any) -> bool:
        places = extents(value, "")
        return len(overlaps(places, places)) > len(places)

    unshrunk = settings(few, max_examples=100, phases=[Phase.generate])
    found = find(strategies.trees(), doubled, settings=unshrunk)
    assert len(extents(found, "")) >= 2


@pytest.mark.parametrize("layout", ["transposed", "every other", "channels last"])
def test_tensors_have_layouts(layout: str) -> None:
    drawn = strategies.tensors(layouts=[layout], shapes=[(2, 3, 2, 2)])
    assert not find(drawn, lambda tensor: True).is_contiguous()


@settings(few, max_examples=50)
@given(found=strategies.events())
def test_drawn_events_are_in_the_promised_order(found: list[events.Event]) -> None:
    names = [type(event).__name__ for event in found]
    assert names[0] == "TrainBegin"
    assert names[-1] == "TrainEnd"
    assert names.count("BatchBegin") == names.count("BatchEnd") == found[0].steps  # type: ignore[union-attr]
    steps = [e.state.counters.step for e in found if isinstance(e, events.BatchEnd)]
    assert steps == list(range(1, len(steps) + 1))


@given(duration=strategies.durations(), cuts=strategies.cuts(9, ways=("kill",), workers=(0, 2)))
def test_durations_and_cuts(duration: Any, cuts: list[Cut]) -> None:
    assert not isinstance(duration, Minutes)
    assert ft.durations.duration(str(duration)) == duration
    assert [cut.step for cut in cuts] == sorted({cut.step for cut in cuts})
    assert all(cut.how == "kill" and 0 < cut.step < 9 for cut in cuts)


def test_drawn_values_shrink_and_print_as_code() -> None:
    clipped = lambda case: case.recipe["clip_norm"] is not None  # noqa: E731
    case = find(strategies.cases(), clipped, settings=settings(few, max_examples=100))
    assert repr(case) == (
        "Case(architecture=Architecture(kind='vector', blocks=()), recipe={'optimizer': "
        "SGD(lr=0.02, momentum=0.9, dampening=0.0, weight_decay=0.0, nesterov=True, "
        "maximize=False), 'ema': None, 'clip_norm': 0.1, 'accumulate': 1, 'precision': 'float32', "
        "'nonfinite': 'raise'})"
    )
    found = find(strategies.architectures(), lambda each: "LSTM" in each.blocks)
    assert found == strategies.Architecture("sequence", ("LSTM",))
    tensor = find(strategies.tensors(), lambda tensor: tensor.ndim == 2 and tensor.numel() > 2)
    assert tree.equal(tensor, torch.zeros(2, 3))


@few
@given(architecture=strategies.architectures())
def test_an_architecture_is_a_value(architecture: strategies.Architecture) -> None:
    again = attrs.evolve(architecture)
    assert again == architecture
    programs = [each.program(optimizer=ft.optim.SGD(lr=0.1)) for each in (architecture, again)]
    assert tree.diff(*(program.init(3) for program in programs)) == []
    assert tree.diff(architecture.batch(1, 3), again.batch(1, 3)) == []
