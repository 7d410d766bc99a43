"""Run nanoGPT's recipe for small computers twice, with its own train.py and with functrain.

git clone https://github.com/karpathy/nanoGPT && python nanoGPT/data/shakespeare_char/prepare.py
python benchmarks/nanogpt.py nanoGPT [--steps 2000]

Both take the model from nanoGPT's model.py, and the same batches in the same order. The table has
the losses that each estimates; nanoGPT's README gives 1.88 for the last one on validation data.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import math
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import functrain as ft

SIZES = {"n_layer": 4, "n_head": 4, "n_embd": 128, "block_size": 64, "dropout": 0.0}
BATCH_SIZE, EVALUATED_BATCHES, EVAL_EVERY = 12, 20, 250
RATE, LEAST_RATE, WARMUP, DECAY, BETAS = 1e-3, 1e-4, 100, 0.1, (0.9, 0.99)
ESTIMATE = re.compile(r"^step (\d+): train loss ([\d.]+), val loss ([\d.]+)$", re.MULTILINE)

Batch = tuple[Tensor, Tensor]
Losses = tuple[float, float]


def original(checkout: Path, steps: int) -> dict[int, Losses]:
    """Return the losses, training and validation, that nanoGPT's train.py prints, by step."""
    options = {
        **SIZES,
        "device": "cpu",
        "compile": False,
        "dtype": "float32",
        "batch_size": BATCH_SIZE,
        "eval_iters": EVALUATED_BATCHES,
        "eval_interval": EVAL_EVERY,
        "log_interval": 1000,
        "max_iters": steps,
        "lr_decay_iters": steps,
    }
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "train.py", "config/train_shakespeare_char.py"]
        command += [f"--{name}={value}" for name, value in {**options, "out_dir": out}.items()]
        done = subprocess.run(command, cwd=checkout, stdout=subprocess.PIPE, text=True, check=True)
    found = ESTIMATE.findall(done.stdout)
    return {int(step): (float(train), float(valid)) for step, train, valid in found}


def ours(checkout: Path, steps: int) -> Iterator[tuple[int, Losses]]:
    """Train with functrain and yield the losses, training and validation, with their step."""
    train, valid = (characters(checkout, part) for part in ("train", "val"))
    torch.manual_seed(1337)
    program = ft.program(made(checkout), loss, optimizer(steps), clip_norm=1.0)
    state = program.init()
    batch = drawn(train)
    for step in range(steps + 1):
        if step % EVAL_EVERY == 0:
            yield step, (estimate(program, state, train), estimate(program, state, valid))
        state, _ = program.train_step(state, batch)
        batch = drawn(train)  # where train.py draws it, so that both see the same batches


def made(checkout: Path) -> nn.Module:
    """Return the model of nanoGPT's model.py."""
    spec = importlib.util.spec_from_file_location("nanogpt_model", checkout / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass looks itself up there
    spec.loader.exec_module(module)
    config = module.GPTConfig(**SIZES, vocab_size=vocabulary(checkout), bias=False)
    with contextlib.redirect_stdout(sys.stderr):  # it prints how many parameters it has
        return module.GPT(config)


def vocabulary(checkout: Path) -> int:
    """Return the number of different characters, of which prepare.py numbers every one."""
    return 1 + max(int(characters(checkout, part).max()) for part in ("train", "val"))


def characters(checkout: Path, part: str) -> Tensor:
    file = checkout / "data" / "shakespeare_char" / f"{part}.bin"
    return torch.from_numpy(np.fromfile(file, dtype=np.uint16).astype(np.int64))


def drawn(text: Tensor) -> Batch:
    """Return random pieces of a text, each with the same piece one character later."""
    length = int(SIZES["block_size"])
    begins = torch.randint(len(text) - length, (BATCH_SIZE,))
    pieces = text[begins[:, None] + torch.arange(length + 1)]
    return pieces[:, :-1].contiguous(), pieces[:, 1:].contiguous()


def loss(model: nn.Module, batch: Batch) -> Tensor:
    _, value = model(*batch)
    return value


def optimizer(steps: int) -> Any:
    """Return AdamW with nanoGPT's rates; vectors have no weight decay."""
    adamw = ft.optim.AdamW(ft.schedules.Lambda(rate(steps)), betas=BETAS, weight_decay=DECAY)
    return ft.optim.no_decay_on_bias_and_norm(adamw)


def rate(steps: int) -> Callable[[int], float]:
    def at(step: int) -> float:
        if step < WARMUP:
            return RATE * (step + 1) / (WARMUP + 1)
        progress = (step - WARMUP) / (steps - WARMUP)
        return LEAST_RATE + (RATE - LEAST_RATE) * 0.5 * (1 + math.cos(math.pi * progress))

    return at


def estimate(program: ft.Program, state: ft.TrainState, text: Tensor) -> float:
    losses = [program.eval_step(state, drawn(text))["loss"] for _ in range(EVALUATED_BATCHES)]
    return torch.stack(losses).mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("checkout", type=Path, help="a clone of nanoGPT with its data prepared")
    parser.add_argument("--steps", type=int, default=2000)
    options = parser.parse_args()
    theirs = original(options.checkout, options.steps)
    titles = ("step", "train, nanoGPT", "functrain", "validation, nanoGPT", "functrain")
    print(f"| {' | '.join(titles)} |\n{'|---' * len(titles)}|")
    for step, (train, valid) in ours(options.checkout, options.steps):
        their_train, their_valid = theirs[step]
        print(f"| {step} | {their_train:.4f} | {train:.4f} | {their_valid:.4f} | {valid:.4f} |")


if __name__ == "__main__":
    main()
