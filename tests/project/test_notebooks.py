"""Every notebook runs from top to bottom, prints its results, and is committed small and clean."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
jupyter_client = pytest.importorskip("jupyter_client")

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
LARGEST = 400 * 1024  # a report of a run alone is 100 KB
# Text that each notebook prints.
SHOWN = {
    "digits": [
        "ended by signal 9\na checkpoint before the end was left: True",
        "differences: []",
        "step 93 differs in lr",
        "the exported program predicts the same: True",
    ],
    "first_program": [
        "the old state changed in 0 places",
        "stopped at step 137",
        "max_epochs 300",
        "differences: []",
    ],
    "own_loop": [
        "loaded at epoch 1 batch 7\ndifferences: []",
        "four equal parts steps: 1 largest difference below 1e-6: True",
        "two uneven parts steps: 1 largest difference below 1e-6: True",
        "interrupted after step 42\ncontinued to step 50",
    ],
    "rewind_and_fork": [
        "saved at [40, 50, 100, 150, 200]",
        "recipe.optimizer.lr: 0.001 in the checkpoint, 0.015 now",
        "the logs part at step 101: lr is 0.001 and 0.015",
        "step 101 part lr",
        "the twin differs in 0 places",
        "step 20 differences: []",
    ],
    "testing_your_code": [
        "ImpurityError: the loss is not pure:\n  batch[0] was changed",
        "loss differs between two calls",
        "new_state['w'] shares memory with state['w']",
        "Clamping.on_batch_end is not pure",
        "the first step that differs is 6",
        "lr at step 2 was 0.1",
    ],
    "compiled_and_donated": [
        "differences: []\nstate.params was read",
        "this TrainState was given to a donated step",
        "the first step takes at least 100 times as long: True",
        "below 1e-5: True",
        "compiled twice, differences: []",
        "compiled cannot take this step",
    ],
    "populations": [
        "steps and members: (200, 64)",
        "the best learning rate is between 0.01 and 1: True",
        "evaluated alone, it is the same: True",
        "less than half of the loss of the best constant: True",
        "is less than half of that at the beginning: True",
    ],
    "coming_from": ["max_epochs accuracy", "epoch 3", "steps 8 differences: []", "accuracy"],
}
ABSOLUTE = re.compile(
    r"(?<![\w.:/<])/(home|root|work|tmp|Users|usr|var|private|mnt|opt)\b|[A-Z]:\\\\"
)


def outputs(notebook: Any) -> Iterator[Any]:
    for cell in notebook.cells:
        yield from cell.get("outputs", [])


def printed(notebook: Any) -> str:
    return "".join(o.text for o in outputs(notebook) if o.get("name") == "stdout")


def read(path: Path) -> Any:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def test_every_notebook_is_checked() -> None:
    assert {path.stem for path in NOTEBOOKS} == set(SHOWN)


@pytest.mark.slow
@pytest.mark.sweep
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_and_prints_its_results(path: Path, tmp_path: Path) -> None:
    notebook = read(path)
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=300, resources=resources).execute()
    text = printed(notebook)
    for words in SHOWN[path.stem]:
        assert words in text
    assert not [o.text for o in outputs(notebook) if o.get("name") == "stderr"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
class TestAsCommitted:
    def test_it_was_run_from_top_to_bottom(self, path: Path) -> None:
        code = [cell for cell in read(path).cells if cell.cell_type == "code"]
        assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
        text = printed(read(path))
        for words in SHOWN[path.stem]:
            assert words in text

    def test_it_is_small_and_without_errors(self, path: Path) -> None:
        assert path.stat().st_size < LARGEST
        kinds = {output.output_type for output in outputs(read(path))}
        assert kinds <= {"stream", "execute_result", "display_data"}

    def test_it_names_no_place_on_a_machine(self, path: Path) -> None:
        notebook = read(path)
        pictures = {"image/png", "image/svg+xml"}
        shown = [
            json.dumps(
                {
                    kind: data
                    for kind, data in output.get("data", {}).items()
                    if kind not in pictures
                }
            )
            + output.get("text", "")
            for output in outputs(notebook)
        ]
        sources = [cell.source for cell in notebook.cells]
        found = [match for text in shown + sources for match in ABSOLUTE.findall(text)]
        assert not found


def test_an_absolute_path_is_detected() -> None:
    for text in ("in /home/me/x.py", '"/tmp/a"', "=/work/b"):
        assert ABSOLUTE.search(text)
    for text in ("</tmp>", "a/tmp/b", "https://x.org/home/"):
        assert not ABSOLUTE.search(text)


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
