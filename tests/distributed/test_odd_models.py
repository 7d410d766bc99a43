"""Models that nobody thinks of: each has the bytes of one process, or an error that names it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import ranks
import torch
from sharded_runs import MUON
from torch import Tensor, nn

import functrain as ft
from functrain import optim, tree
from functrain.tree.placed import is_placed

SHARDS = ["optimizer", "all"]
LAMB, ADAMW, ADAFACTOR = (kind(lr=0.01) for kind in (optim.LAMB, optim.AdamW, optim.Adafactor))


class Tied(nn.Module):
    """One weight has two names, and one norm two places."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.mid = nn.Embedding(96, 32), nn.Linear(32, 32)
        self.head = nn.Linear(32, 96, bias=False)
        self.head.weight = self.tokens.weight
        self.norm = self.last_norm = nn.LayerNorm(32)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.mid(self.norm(self.tokens((x.abs() * 30).long() % 96))))
        out: Tensor = self.head(self.last_norm(hidden))
        return out


class Empty(nn.Module):
    """Has parameters without elements, and one without dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.gain = nn.Linear(64, 65), nn.Parameter(torch.tensor(1.5))
        self.rows, self.columns = (nn.Parameter(torch.zeros(s)) for s in ((0, 64), (64, 0)))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x) * self.gain + self.rows.sum() + self.columns.sum()
        return out


class One(nn.Module):
    """Has a single parameter, of any shape and dtype."""

    def __init__(self, *shape: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(shape).to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.weight.dtype)
        return (x @ self.weight if self.weight.ndim else x * self.weight).abs()


class Strided(nn.Module):
    """Has parameters with gaps, turned ones, and a convolution in ``channels_last``."""

    def __init__(self) -> None:
        super().__init__()
        self.gaps = nn.Parameter(torch.randn(64, 130)[:, ::2])
        self.turned = nn.Parameter(torch.randn(64, 65).t())
        self.conv = nn.Conv2d(1, 64, (3, 1)).to(memory_format=torch.channels_last)
        self.deep = nn.Parameter(torch.randn(4, 4, 64).permute(2, 0, 1))

    def forward(self, x: Tensor) -> Tensor:
        image = self.conv(x.view(len(x), 1, 8, 8)).mean((2, 3))
        return (x @ self.gaps) @ self.turned + image + self.deep.sum((1, 2))


class Colliding(nn.Module):
    """Its parameters are called like entries of optimizer states, and like parts of a state."""

    def __init__(self) -> None:
        super().__init__()
        self.step, self.exp_avg = (nn.Parameter(torch.randn(s)) for s in ((64, 65), (65, 64)))
        self.params = nn.Parameter(torch.randn(64))

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.step) @ self.exp_avg + self.params


class Listed(nn.ParameterList):
    """Its parameters are called like the members of groups."""

    def __init__(self) -> None:
        super().__init__([torch.randn(64, 65), torch.randn(65, 64)])

    def __call__(self, x: Tensor) -> Tensor:
        return x @ self[0] @ self[1]


def layers(frozen: bool = False) -> nn.Module:
    first = nn.Linear(64, 65).requires_grad_(not frozen)
    return nn.Sequential(first, nn.Dropout(0.3), nn.LayerNorm(65), nn.Linear(65, 64))


def squared(model: nn.Module, x: Tensor) -> Tensor:
    return model(x).square().mean().float()


Case = tuple[Callable[[], nn.Module], optim.Optimizer, int]
CASES: dict[str, Case] = {
    **{
        f"{kind.__name__} {type(optimizer).__name__}": (kind, optimizer, 4)
        for kind in (Tied, Empty, Strided, Colliding)
        for optimizer in (MUON, LAMB, ADAMW, ADAFACTOR)
    },
    **{
        f"One of {shape} {dtype}": (lambda s=shape, d=dtype: One(*s, dtype=d), optimizer, 4)
        for shape, dtype, optimizer in (
            ((), torch.float32, LAMB),
            ((64, 65), torch.float64, MUON),
            ((64, 64), torch.bfloat16, ADAMW),
            ((64, 65), torch.bfloat16, optim.Float32State(LAMB, master_weights=True)),
            ((64, 65), torch.complex64, LAMB),
            ((64, 64), torch.complex64, ADAMW),
            ((64, 1), torch.float32, ADAFACTOR),
        )
    },
    "groups by number": (Listed, optim.groups([("1", LAMB), ("0", ADAMW)]), 4),
    "seven parts": (layers, MUON, 7),
    "frozen": (lambda: layers(frozen=True), LAMB, 4),
    "frozen group": (layers, optim.groups([("0.*", optim.Frozen()), ("*", LAMB)]), 4),
    "tensors as hyperparameters": (
        layers,
        optim.Adafactor(lr=torch.tensor(0.01), weight_decay=torch.tensor(0.1)),
        4,
    ),
    **{
        f"torch {cls.__name__} {options}": (layers, optim.from_torch(cls, lr=0.01, **options), 4)
        for cls, options in (
            (torch.optim.AdamW, {"fused": True}),
            (torch.optim.Adam, {"foreach": True, "amsgrad": True}),
            (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
            (torch.optim.ASGD, {}),
            (torch.optim.NAdam, {}),
            (torch.optim.Adafactor, {}),
        )
    },
}


def made(name: str, **options: Any) -> tuple[ft.Program, int]:
    """Return a program for one process, and the number of parts."""
    kind, optimizer, parts = CASES[name]
    torch.manual_seed(0)
    return ft.program(kind(), squared, optimizer, clip_norm=0.5, ema=0.9, **options), parts


def digests(program: ft.Program, parts: int) -> list[Any]:
    """Return digests of the state after three steps, and metrics of steps and evaluations."""
    generator = torch.Generator().manual_seed(7)
    state, found = program.init(seed=3), []
    for size in (16, 9 + parts, 5):
        batch = torch.randn(size, 64, generator=generator)
        state, metrics = program.train_step(state, batch)
        found.append({name: value.item() for name, value in metrics.items()})
    whole = program.gathered(state)
    assert tree.equal(program.place(whole), state)
    evaluated = [
        program.eval_step(state, batch, which)["loss"].item() for which in ("params", "ema")
    ]
    leaves = {"params": whole.params, "optimizer": whole.optimizer, "ema": whole.ema}
    forms = [(x.stride(), is_placed(x)) for _, x in tree.items(leaves) if isinstance(x, Tensor)]
    return [tree.digest(state), tree.digest(whole), found, evaluated, forms]


# Each of the four models with one of the four optimizers, and one class of torch.
SOME = [*list(CASES)[:16:5], *list(CASES)[16:-5]]


def by_ranks(names: list[str]) -> dict[tuple[str, str], list[Any]]:
    found = {}
    for name, shard in ((name, shard) for name in names for shard in SHARDS):
        plain, parts = made(name)
        program = ft.sharded(plain, ft.Placement(shard=shard), parts=parts)
        found[name, shard] = digests(program, parts)
    return found


@pytest.mark.row(59)
@pytest.mark.parametrize(
    "names", [SOME, pytest.param([*CASES], marks=pytest.mark.long)], ids=["some", "all"]
)
def test_no_model_has_another_bit(names: list[str]) -> None:
    alone = {}
    for name in names:
        parts = CASES[name][2]
        alone[name] = digests(made(name, accumulate=parts)[0], parts)
    for found in ranks.run(by_ranks, 3, names, timeout=300):
        assert [case for case in found if found[case] != alone[case[0]]] == []


def sparse() -> None:
    plain = ft.program(nn.Embedding(96, 32, sparse=True), squared, ADAMW)
    program = ft.sharded(plain, ft.Placement(shard="all"), parts=2)
    program.train_step(program.init(), torch.zeros(4, dtype=torch.int64))


def test_a_sparse_gradient_is_refused_by_name() -> None:
    for error in ranks.outcomes(sparse, 2):
        assert isinstance(error, ft.errors.UnsupportedError | ft.errors.RankFailedError)
        assert "'weight'" in str(error)
        assert "sparse=False" in str(error)
