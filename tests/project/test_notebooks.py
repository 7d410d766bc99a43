"""Every notebook runs from top to bottom, and a kernel can be interrupted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
jupyter_client = pytest.importorskip("jupyter_client")

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


def outputs(notebook: Any) -> Iterator[Any]:
    for cell in notebook.cells:
        yield from cell.get("outputs", [])


def printed(notebook: Any) -> str:
    return "".join(o.text for o in outputs(notebook) if o.get("name") == "stdout")


@pytest.mark.slow
@pytest.mark.sweep
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_and_what_it_claims_holds(path: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=300, resources=resources).execute()
    text = printed(notebook)
    assert not re.findall(r".*: False$|.*differences: \[[^]].*", text, re.MULTILINE)
    assert not [o.text for o in outputs(notebook) if o.get("name") == "stderr"]


class Kernel:
    """A real kernel, as Jupyter and VS Code start it."""

    def __init__(self) -> None:
        self.manager, self.client = jupyter_client.manager.start_new_kernel(kernel_name="python3")

    def run(self, code: str, interrupt_at: str | None = None) -> tuple[str, str]:
        """Run a cell.

        Args:
            code: of the cell.
            interrupt_at: what is printed when somebody presses the stop button.

        Returns:
            (what it printed, the name of the error it ended with, if any).
        """
        asked = self.client.execute(code)
        text, error = "", ""
        while True:
            message = self.client.get_iopub_msg(timeout=300)
            if message["parent_header"].get("msg_id") != asked:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "stream" and content["name"] == "stdout":
                text += content["text"]
            if interrupt_at is not None and interrupt_at in text:
                self.manager.interrupt_kernel()
                interrupt_at = None
            if kind == "error":
                error = content["ename"]
            if kind == "status" and content["execution_state"] == "idle":
                return text, error


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    """Start one kernel, which takes seconds to import torch."""
    kernel = Kernel()
    yield kernel
    kernel.client.stop_channels()
    kernel.manager.shutdown_kernel(now=True)


SETTING = """
import functrain as ft, torch
torch.set_num_threads(1)
x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
data = ft.data.Batches((x, x.sum(1, keepdim=True)), 8, seed=0)
loss = lambda model, batch: (model(batch[0]) - batch[1]).square().mean()
layers = lambda: [torch.nn.Linear(4, 8), torch.nn.Dropout(), torch.nn.Linear(8, 1)]
program = ft.program(lambda: torch.nn.Sequential(*layers()), loss, ft.optim.AdamW(lr=1e-3))

def straight(steps):
    state = program.init(seed=0)
    for state, _ in ft.iterate(program, state, data, until=ft.Steps(steps)):
        pass
    return state
"""


@pytest.mark.slow
@pytest.mark.row(38)
def test_the_stop_button_ends_fit_with_a_run(kernel: Kernel) -> None:
    kernel.run(SETTING)
    code = """
class Saying:
    def on_batch_end(self, event):
        if event.state.counters.step == 5:
            print("begun", flush=True)

run = ft.fit(program, data, until="10000000 steps", listeners=[Saying()])
print(run.reason)
"""
    text, error = kernel.run(code, interrupt_at="begun")
    assert (text.split(), error) == (["begun", "interrupted"], "")
    text, error = kernel.run("print(ft.tree.diff(run.state, straight(run.state.counters.step)))")
    assert (text, error) == ("[]\n", "")
    # The next cell can still be interrupted.
    text, error = kernel.run("print('x', flush=True)\nwhile True: pass", interrupt_at="x")
    assert error == "KeyboardInterrupt"


@pytest.mark.slow
@pytest.mark.row(1)
@pytest.mark.long
def test_after_the_stop_button_a_loop_holds_the_last_whole_step(kernel: Kernel) -> None:
    kernel.run(SETTING)
    code = """
state = program.init(seed=0)
for state, metrics in ft.iterate(program, state, data, until="10000000 steps"):
    if state.counters.step == 5:
        print("begun", flush=True)
"""
    _, error = kernel.run(code, interrupt_at="begun")
    assert error == "KeyboardInterrupt"
    text, error = kernel.run(
        "print(state.counters.step >= 5, ft.tree.diff(state, straight(state.counters.step)))"
    )
    assert (text, error) == ("True []\n", "")
    more = """
for state, metrics in ft.iterate(program, state, data, until=ft.Steps(state.counters.step + 9)):
    pass
print(ft.tree.diff(state, straight(state.counters.step)))
"""
    assert kernel.run(more) == ("[]\n", "")


@pytest.mark.slow
@pytest.mark.row(42)
def test_live_curves_update_one_output(kernel: Kernel) -> None:
    code = SETTING + (
        "live = ft.listeners.LiveCurves()\n"
        "run = ft.fit(program, data, until='40 steps', eval_data=data, listeners=[live])\n"
        "program.init(seed=0)"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    nbclient.NotebookClient(notebook, km=kernel.manager, timeout=300).execute()
    curves, state = outputs(notebook)
    assert curves.output_type == "display_data"
    assert "eval/loss" in curves.data["text/html"]
    assert "loss" in curves.data["text/plain"]
    assert state.data["text/html"].startswith("<div")
    assert state.data["text/plain"].startswith("TrainState(")
