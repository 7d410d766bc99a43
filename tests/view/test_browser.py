"""Pages in a real browser, where there is one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from functrain.plotting.chart import chart_of
from functrain.plotting.columns import Columns
from functrain.view.page import chart_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")]
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


def dom(page: str, tmp_path: Path, width: int = 1200) -> str:
    (tmp_path / "page.html").write_text(page, "utf-8")
    command = [
        *(str(CHROMIUM), *QUIET, f"--user-data-dir={tmp_path / 'profile'}"),
        *(f"--window-size={width},900", "--dump-dom", (tmp_path / "page.html").as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    return done.stdout


RUNS = {
    name: Columns.of(
        [{"step": s, "loss": scale / s, "lr": 0.1, "eval/loss": scale} for s in range(1, 101)]
    )
    for name, scale in (("first", 1.0), ("<b>second</b>", 2.0))
}


def test_a_narrow_page_does_not_scroll_sideways(tmp_path: Path) -> None:
    probe = "onload = () => document.body.id = document.documentElement.scrollWidth <= innerWidth"
    page = chart_page(chart_of(RUNS, title="runs")).replace("Content-Security-Policy", "none")
    shown = dom(page.replace("<body>", f"<body><script>{probe}</script>", 1), tmp_path, width=520)
    assert '<body id="true">' in shown


def test_no_script_runs_under_the_policy(tmp_path: Path) -> None:
    page = chart_page(chart_of(RUNS, title="</title><script>document.title='taken'</script>"))
    hurt = page.replace("<body>", "<body><script>document.body.id = 'taken'</script>", 1)
    assert 'id="taken"' not in dom(hurt, tmp_path)
    assert 'id="taken"' in dom(hurt.replace("Content-Security-Policy", "none"), tmp_path)
