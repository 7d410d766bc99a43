"""A step that succeeds imports nothing of what explains a failed one."""

from __future__ import annotations

import subprocess
import sys

SUCCEEDS = """
import sys, warnings
import torch
import functrain as ft

def loss(model, batch):
    return ft.Loss(model(batch).square().mean(), metrics={"one": 1.0})

made = ft.program(torch.nn.Linear(2, 1), loss, ft.optim.AdamW(lr=0.1), accumulate=2, ema=0.9)
x = torch.ones(4, 2)
for program in (made, ft.donated(made)):
    state, _ = program.train_step(program.init(), x)
    program.eval_step(state, x)
    with program.evaluating(state) as model:
        model(x)
    ft.fit(program, [x] * 4, until="4 steps")
print([name for name in sys.modules if name.startswith("functrain.diagnosis")])
"""


def test_a_step_an_evaluation_and_a_run_that_succeed_do_not_import_the_room() -> None:
    command = [sys.executable, "-c", SUCCEEDS]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n", ended.stdout
