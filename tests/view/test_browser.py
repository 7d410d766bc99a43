"""The page's script in a real browser, where there is one."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from functrain.plotting import Columns, chart_of
from functrain.view.page import chart_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium"),
]
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
# Acts like a reader and records the text on the page.
READER = """
const seen = [];
addEventListener("error", (event) => seen.push(event.message));
addEventListener("load", () => {
  const panel = document.querySelector(".panel"), svg = panel.querySelector(":scope > svg");
  const box = svg.getBoundingClientRect();
  const at = (x) => ({clientX: box.left + box.width * x, clientY: box.top + 50});
  svg.dispatchEvent(new PointerEvent("pointermove", at(0.979)));
  seen.push(panel.querySelector(".tip").innerText.replace(/\\s+/g, " "));
  const button = document.querySelector(".legend button");
  button.click();
  seen.push(button.getAttribute("aria-pressed"));
  seen.push(document.querySelectorAll("g.hidden").length);
  svg.dispatchEvent(new PointerEvent("pointermove", at(0.979)));
  seen.push(panel.querySelector(".tip").innerText.replace(/\\s+/g, " "));
  const tip = panel.querySelector(".tip").getBoundingClientRect();
  seen.push(tip.right < box.left + box.width * 0.98 && tip.left > box.left);
  seen.push(document.documentElement.scrollWidth <= innerWidth);
  const out = document.createElement("pre");
  out.id = "seen";
  out.textContent = JSON.stringify(seen);
  document.body.append(out);
});
"""


def dom(page: str, tmp_path: Path, width: int = 1200) -> str:
    (tmp_path / "page.html").write_text(page, "utf-8")
    command = [
        *(str(CHROMIUM), *QUIET, f"--user-data-dir={tmp_path / 'profile'}"),
        *(f"--window-size={width},900", "--dump-dom", (tmp_path / "page.html").as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


def watched(page: str) -> str:
    """The page with a reader in it, whose script the page's own policy would not let run."""
    without = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    return without.replace("<body>", f"<body><script>{READER}</script>", 1)


RUNS = {
    name: Columns.of(
        [{"step": s, "loss": scale / s, "lr": 0.1, "eval/loss": scale} for s in range(1, 101)]
    )
    for name, scale in (("first", 1.0), ("<b>second</b>", 2.0))
}


@pytest.mark.parametrize("width", [1200, 520])
def test_values_show_under_the_pointer_and_runs_hide(width: int, tmp_path: Path) -> None:
    page = chart_page(chart_of(RUNS, title="runs"))
    found = re.search(r'<pre id="seen">(.*?)</pre>', dom(watched(page), tmp_path, width))
    assert found is not None
    assert found[1] == (
        '["step 100 first: loss 0.01 first: eval/loss 1 '
        "&lt;b&gt;second&lt;/b&gt;: loss 0.02 &lt;b&gt;second&lt;/b&gt;: eval/loss 2"
        '","false",3,"step 100 '
        '&lt;b&gt;second&lt;/b&gt;: loss 0.02 &lt;b&gt;second&lt;/b&gt;: eval/loss 2",true,true]'
    )


def test_the_script_runs_under_the_policy_and_no_other_does(tmp_path: Path) -> None:
    page = chart_page(chart_of(RUNS, title="</title><script>document.title='taken'</script>"))
    assert 'data-ready="yes"' in dom(page, tmp_path)
    hurt = page.replace("<body>", "<body><script>document.body.id = 'taken'</script>", 1)
    shown = dom(hurt, tmp_path)
    assert 'data-ready="yes"' in shown
    assert 'id="taken"' not in shown
