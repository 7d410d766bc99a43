"""The scripts that repeat experiments and published results run on small sizes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

MODEL = """
from dataclasses import dataclass
import torch
from torch import nn
import torch.nn.functional as F

@dataclass
class GPTConfig:
    n_layer: int; n_head: int; n_embd: int; block_size: int
    dropout: float; vocab_size: int; bias: bool

class GPT(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.embedding = nn.Embedding(config.vocab_size, config.n_embd)
        self.head = nn.Linear(config.n_embd, config.vocab_size)

    def forward(self, x, y):
        logits = self.head(self.embedding(x))
        return logits, F.cross_entropy(logits.flatten(0, 1), y.flatten())
"""
# The order of events of nanoGPT's train.py, for a model without dropout.
TRAIN = """
import sys
import numpy as np, torch
from model import GPT, GPTConfig

options = dict(a[2:].split("=") for a in sys.argv[2:])
text = {p: torch.tensor(np.fromfile(f"data/shakespeare_char/{p}.bin", np.uint16).astype("int64"))
        for p in ("train", "val")}
def batch(part):
    at = torch.randint(len(text[part]) - 64, (12,))
    return [torch.stack([text[part][i + d : i + d + 64] for i in at]) for d in (0, 1)]
torch.manual_seed(1337)
model = GPT(GPTConfig(4, 4, 128, 64, 0.0, 30, False))
parts = [[p for p in model.parameters() if (p.dim() > 1) is wide] for wide in (True, False)]
adamw = torch.optim.AdamW([{"params": p, "weight_decay": d} for p, d in zip(parts, (0.1, 0.0))],
                          lr=1e-3, betas=(0.9, 0.99))
x, y = batch("train")
for step in range(int(options["max_iters"]) + 1):
    if step % 250 == 0:
        with torch.no_grad():
            both = [torch.stack([model(*batch(p))[1] for _ in range(20)]).mean() for p in text]
        print(f"step {step}: train loss {both[0]:.4f}, val loss {both[1]:.4f}")
    for group in adamw.param_groups:
        group["lr"] = 1e-3 * (step + 1) / 101
    model(x, y)[1].backward()
    x, y = batch("train")
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    adamw.step(); adamw.zero_grad()
"""


def output(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows(table: str) -> list[list[str]]:
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.long
@pytest.mark.slow
def test_nanogpt_and_functrain_print_the_same_losses(tmp_path: Path) -> None:
    import numpy as np

    data = tmp_path / "data" / "shakespeare_char"
    data.mkdir(parents=True)
    for part, size in (("train", 3000), ("val", 400)):
        (np.arange(size) * 7 % 30).astype(np.uint16).tofile(data / f"{part}.bin")
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "train.py").write_text(TRAIN)
    heads, first = rows(output("benchmarks/nanogpt.py", str(tmp_path), "--steps", "5"))
    assert heads[0] == "step"
    assert first[0] == "0"
    assert first[1] == first[2]
    assert first[3] == first[4]


@pytest.mark.slow
def test_the_table_of_mnist_1d_equals_a_plain_loop() -> None:
    pytest.importorskip("mnist1d")
    options = ["--steps", "5", "--seeds", "1", "2", "--models", "CNN", "GRU", "--plain"]
    _, *models = rows(output("benchmarks/mnist_1d.py", *options))
    assert [row[0] for row in models] == ["CNN", "GRU"]
    assert [row[-1] for row in models] == ["yes", "yes"]


@pytest.mark.long
@pytest.mark.slow
def test_the_experiments_tell_an_exact_resumption_from_another() -> None:
    options = ["--only", "functrain", "PyTorch", "--tasks", "dropout", "NumPy"]
    table = output("-m", "benchmarks.proof", "resume", *options)
    heads, *tasks, total = rows(table)
    assert [head.partition(" ")[0] for head in heads[1:]] == ["functrain", "PyTorch", "PyTorch"]
    assert [task[0] for task in tasks] == ["dropout", "augmentation with NumPy"]
    assert total[1:] == ["2 of 2", "0 of 2", "2 of 2"]


@pytest.mark.long
@pytest.mark.slow
def test_a_flipped_bit_never_changes_a_run_silently() -> None:
    table = output("-m", "benchmarks.proof", "damage", "--count", "6", "--only", "functrain")
    _, (_, same, failed, other) = rows(table)
    assert (int(same) + int(failed), other) == (6, "0")


@pytest.mark.long
@pytest.mark.slow
def test_a_power_cut_loses_nothing_that_was_synced() -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    options = ["--count", "8", "--only", "functrain", "tutorial"]
    _, (_, *ours), (_, *theirs) = rows(output("-m", "benchmarks.proof", "power", *options))
    assert [int(count) for count in ours] == [4, 4, 0, 0, 0]
    assert int(theirs[3]) > 0  # torch.save syncs nothing: the only checkpoint may be cut off


@pytest.mark.long
@pytest.mark.slow
def test_two_processes_end_in_the_bytes_of_one() -> None:
    options = ["--only", "functrain", "tutorial"]
    _, (_, *ours), (_, *theirs) = rows(output("-m", "benchmarks.proof", "world", *options))
    assert ours == ["same bytes"] * 4
    assert all(cell.endswith(" apart") for cell in theirs)
