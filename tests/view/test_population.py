"""A population's run in a notebook and as a page."""

from __future__ import annotations

import re
from pathlib import Path

from populations import batch, program

import functrain as ft
from functrain.view.run_report import report
from functrain.view.values_html import run_html


def test_pages_name_the_best_member(tmp_path: Path) -> None:
    pop = ft.population(program(), {"lr": [0.1, 0.01, 0.001]})
    data = [batch(number) for number in range(2)]
    run = ft.fit(pop, data, until="2 epochs", eval_data=data, directory=tmp_path)
    member = run.best["member"]
    step = run.best["step"][member]
    assert f"at step {step}, member {member} of 3" in str(run_html(run))
    text = re.sub("<[^>]+>", " ", report(tmp_path).read_text())
    assert f"at step {step}, member {member}" in text
    assert "loss: best of 3 members, and quartiles" in text
    assert "Population" in text
