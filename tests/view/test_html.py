"""Programs, schedules, differences and charts in a notebook."""

from __future__ import annotations

import itertools
import re

import pytest
import torch
from pages import Page, in_notebook
from torch import nn

import functrain as ft
from functrain import schedules
from functrain.plotting.colors import BETWEEN


def square(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    return model(batch).square().mean()


def program(lr: object = 0.1) -> ft.Program:
    model = nn.Linear(2, 1)
    return ft.program(model, square, ft.optim.AdamW(lr=lr), ema=0.9, trainable="weight")


@pytest.mark.row(2)
class TestProgram:
    def test_the_recipe_is_a_table(self) -> None:
        page = Page(in_notebook(program()))
        assert page.is_self_contained()
        assert page.row("model")[1] == "'Linear'"
        assert page.row("ema")[1].startswith("EMA(decay=0.9")
        assert page.row("clip_norm")[1] == "None"
        assert "2 trained parameters, 1 frozen" in page.text
        assert "svg" not in page.tags

    def test_each_group_shows_its_schedule(self) -> None:
        groups = ft.optim.groups(
            [
                ("*bias", ft.optim.SGD(lr=schedules.Cosine(0.1))),
                ("*", ft.optim.SGD(lr=schedules.Linear(0.1))),
            ]
        )
        page = Page(in_notebook(ft.program(nn.Linear(2, 1), square, groups)))
        assert page.tags.count("svg") == 2
        assert "lr.0" in page.text
        assert "lr.1" in page.text


def points(html: str) -> list[tuple[float, float]]:
    """Return the points of the first line drawn in colour."""
    path, *_ = re.findall(rf'd="([^"]+)" style="fill: none; stroke: {BETWEEN[0]}', html)
    pairs = re.findall(r"[ML] ([\d.]+) ([\d.]+)", path)
    return [(float(x), float(y)) for x, y in pairs]


class TestSchedule:
    def test_the_curve_is_that_of_the_schedule(self) -> None:
        schedule = schedules.Linear(1.0, steps=101)
        places = points(in_notebook(schedule))
        assert len(places) == 101
        heights = [y for _, y in places]
        slopes = {round(after - before, 1) for before, after in itertools.pairwise(heights)}
        assert len(slopes) <= 2
        assert heights[0] < heights[-1]  # downwards is more in SVG

    @pytest.mark.parametrize(
        ("schedule", "note"),
        [
            (
                schedules.WarmupCosine(0.1, warmup_steps=10),
                "ends with the run; drawn for one of 1,",
            ),
            (schedules.Joined([(0.5, 0.1), (0.5, schedules.Linear(0.1))]), "ends with the run"),
            (schedules.WarmupCosine(0.1, warmup_steps=5000), "one of 10,000 steps"),
            (schedules.Constant(0.1), "has no end of its own; drawn are 1,000 steps"),
            (schedules.Cosine(0.1, steps=50), ""),
        ],
        ids=lambda value: str(value)[:25],
    )
    def test_a_note_tells_an_assumed_horizon(self, schedule: schedules.Schedule, note: str) -> None:
        page = Page(in_notebook(schedule))
        assert page.is_self_contained()
        assert repr(schedule) in page.text
        assert "svg" in page.tags
        assert note in page.text

    def test_a_schedule_that_needs_metrics_says_so_and_shows_its_parts(self) -> None:
        inner = [schedules.Linear(0.0, end=0.1, steps=10), schedules.Plateau(0.1)]
        page = Page(in_notebook(schedules.Sequential(inner, [10])))
        assert "goes by a metric of each evaluation, so there is no curve" in page.text
        assert page.tags.count("svg") == 1
        assert page.tags.count("details") == 2

    def test_an_error_of_a_function_stands_in_place_of_the_curve(self) -> None:
        table = [0.1, 0.2]
        page = Page(in_notebook(schedules.Lambda(lambda step: table[step])))
        assert "not drawn: IndexError: list index out of range" in page.text

    def test_millions_of_steps_are_sampled(self) -> None:
        html = in_notebook(schedules.Cosine(0.1, steps=50_000_000))
        assert len(html) < 40_000
        long = schedules.Warmup(0.1, 10, then=schedules.Cosine(0.1, steps=50_000_000))
        assert "too many for a glance" in in_notebook(long)

    def test_schedules_of_all_kinds_have_html(self) -> None:
        from torch.optim.lr_scheduler import StepLR

        odd = schedules.from_torch(StepLR, lr=0.1, step_size=30)
        for schedule in (odd, schedules.Cyclic(0.1, 1.0, 100, 100), schedules.Spike(0.1)):
            assert Page(in_notebook(schedule)).is_self_contained()


class TestDifferences:
    def test_a_table_with_path_element_values_and_ulps(self) -> None:
        first = {"w": torch.zeros(2, 3), "n": 3, "gone": 1.0}
        second = {"w": torch.zeros(2, 3), "n": 4, "h": torch.ones(1)}
        second["w"][1, 2], second["w"][1, 0] = 1.0, torch.finfo(torch.float32).tiny
        page = Page(in_notebook(ft.tree.diff(first, second)))
        assert page.is_self_contained()
        assert page.row("w") == ["w", "2", "[1, 0]", "0", "1.175e-38", "", "1"]
        assert page.row("n")[:5] == ["n", "1", "", "3", "4"]
        assert page.row("gone")[1] == "missing"
        assert page.row("h")[3] == "only in the second tree"

    def test_values_one_ulp_apart_look_different(self) -> None:
        one = torch.tensor([1.0])
        found = ft.tree.diff({"w": one}, {"w": one.nextafter(torch.tensor(2.0))})
        row = Page(in_notebook(found)).row("w")
        assert row[3] != row[4]
        assert row[5] == "1 ulp"

    def test_equal_trees_say_so_in_words(self) -> None:
        assert "no differences" in Page(in_notebook(ft.tree.diff({}, {}))).text

    def test_hundreds_of_differences_are_cut(self) -> None:
        found = ft.tree.diff({str(n): n for n in range(300)}, {str(n): -1 for n in range(300)})
        assert len(Page(in_notebook(found)).rows) == 101
        assert "... 200 more" in in_notebook(found)
