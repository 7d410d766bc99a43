"""A page is one self-contained file, and names in it are text."""

from __future__ import annotations

import functools
import math
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
from pages import Page

from functrain.plotting.chart import Options, chart_of
from functrain.plotting.columns import Columns
from functrain.view import draw
from functrain.view.page import chart_page

pytest.importorskip("matplotlib")

ATTACKS = [
    "<script>document.title='taken'</script>",
    "</script><script>document.title='taken'</script>",
    "<img src=x onerror=\"document.title='taken'\">",
    '"><svg onload=alert(1)>',
    "' onmouseover='alert(1)",
    "&lt;script&gt;",
    "$\\frac{1}{$",
    "a\x1b[2J\udc80\x00b",
]


def rows(count: int, name: str = "loss") -> list[dict[str, Any]]:
    return [
        {"step": s, name: 1 / s, "lr": 0.1, "grad_norm": math.exp(-s), f"eval/{name}": 2 / s}
        for s in range(1, count + 1)
    ]


def page_of(runs: dict[str, list[dict[str, Any]]], title: str = "runs") -> str:
    return chart_page(chart_of({n: Columns.of(r) for n, r in runs.items()}, title=title))


@functools.cache
def harmless_page() -> Page:
    return Page(page_of({"a": rows(5), "b": rows(5)}))


@pytest.mark.parametrize("attack", ATTACKS)
def test_names_are_never_markup(attack: str) -> None:
    harmless = harmless_page()
    page = page_of({attack: rows(5, attack), "b": rows(5)}, title=attack)
    page.encode()
    found = Page(page)
    assert set(found.tags) == set(harmless.tags)
    assert dict(found.attributes).keys() == dict(harmless.attributes).keys()
    if attack.isprintable():
        assert attack in found.texts


def test_a_page_needs_no_network_and_no_script() -> None:
    page = page_of({"a": rows(50)})
    assert not re.search(r"https?://|@import|url\(|<link|<script|\bsrc=|\bon\w+=", page)
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    assert Page(page).values("content")[:1] == [policy]


def test_equal_charts_are_equal_pages() -> None:
    assert page_of({"a": rows(50)}) == page_of({"a": rows(50)})


def test_every_mark_refers_to_a_shape_of_the_page() -> None:
    page = page_of({"a": rows(5)})
    references = re.findall(r'href="#([^"]*)"', page)
    assert references
    assert set(references) <= set(Page(page).values("id"))


def test_sixty_runs_leave_room_for_their_curves() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        page = page_of({f"seed {run}": rows(3) for run in range(60)})
    assert all(f"seed {run}" in page for run in (0, 59))


@pytest.mark.parametrize("log", [None, True, False])
@pytest.mark.parametrize(
    "rows",
    [
        rows(1),
        rows(3_000),
        [{"step": 1, "loss": math.nan}],
        [{"step": s, "loss": math.inf if s % 2 else -1.0} for s in range(1, 10)],
        [{"step": s, "loss": 0.0} for s in (1, 2)],
        [{"step": 1, "loss": 1e308}, {"step": 2, "loss": -1e308}],
        [{"step": 1}],
    ],
)
def test_any_log_makes_a_page_of_balanced_elements(
    rows: list[dict[str, Any]], log: bool | None
) -> None:
    columns = {"run": Columns.of(rows)}
    page = Page(chart_page(chart_of(columns, Options(log=log))))
    assert "nan" not in " ".join(map(str, page.values("d")))


def test_a_value_that_is_not_finite_is_named() -> None:
    values = [1.0, 2.0, math.nan, 3.0, 4.0]
    page = Page(page_of({"a": [{"step": s, "loss": v} for s, v in enumerate(values)]}))
    assert "loss over step; loss is nan at 2" in page.texts


def test_pages_of_long_and_of_many_runs_stay_below_a_megabyte() -> None:
    long = [
        {"step": s, "loss": 1 / s, "lr": s * 0.1, "grad_norm": s % 97 + 0.123}
        for s in range(1, 50_000)
    ]
    assert len(page_of({"a": long})) < 500_000
    assert len(page_of({str(run): long[:9_000] for run in range(12)})) < 1_000_000


def test_the_end_of_a_file_name_chooses_the_format(tmp_path: Path) -> None:
    chart = chart_of({"a": Columns.of(rows(5))})
    draw(chart, tmp_path / "a.HTML")
    assert (tmp_path / "a.HTML").read_text("utf-8").startswith("<!doctype html>")
