"""Optimizers that need whole leaves: each leaf's state is on one rank, and no bit changes."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import attrs
import pytest
import ranks
import torch
from sharded_runs import MUON, after_each
from torch import Tensor, nn

import functrain as ft
from functrain import optim, tree
from functrain.core.state import fields_of
from functrain.tree.placed import is_placed, local

SHARDS = ["none", "optimizer", "all"]
PARTS = 4
# By name: those of functrain, wrappers around some, and classes of torch.
OPTIMIZERS: dict[str, optim.Optimizer] = {
    **{
        name: getattr(optim, name)(lr=0.01)
        for name in (
            *("Adadelta", "Adafactor", "Adagrad", "Adam", "Adamax", "AdamW", "LAMB"),
            *("Lion", "NAdam", "RAdam", "RMSprop", "ScheduleFreeAdamW"),
            *("ScheduleFreeSGD", "SGD"),
        )
    },
    "Muon and AdamW": MUON,
    "Muon, LAMB and unknown": optim.groups(
        [
            ("deep.*", optim.from_torch(torch.optim.Adafactor, lr=0.01)),
            (optim.is_matrix, optim.Muon(lr=0.02)),
            ("*", optim.LAMB(lr=0.01)),
        ]
    ),
    "AdaptiveGradClip": optim.AdaptiveGradClip(MUON, clipping=0.01),
    "ClipByBlockRms": optim.ClipByBlockRms(optim.Adafactor(lr=0.01), threshold=0.1),
    "Lookahead": optim.Lookahead(optim.LAMB(lr=0.01), sync_period=2),
    "Float32State": optim.Float32State(MUON, master_weights=True),
    "torch Adafactor": optim.from_torch(torch.optim.Adafactor, lr=0.01),
    "torch AdamW": optim.from_torch(torch.optim.AdamW, lr=0.01, amsgrad=True),
    "torch RMSprop": optim.from_torch(torch.optim.RMSprop, lr=0.01, momentum=0.9, centered=True),
}
# Whole leaves alone, with rows of others, with a class that looks at all of them, and a wrapper.
FOUR = ["Adafactor", "Muon and AdamW", "Muon, LAMB and unknown", "AdaptiveGradClip"]


class Net(nn.Module):
    """Has matrices that can be cut and some that cannot, and one that needs more than its share."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3, padding=1)
        self.deep = nn.Conv2d(6, 30, 3).to(memory_format=torch.channels_last)
        self.norm, self.drop = nn.BatchNorm2d(30), nn.Dropout(0.2)
        self.large, self.odd = nn.Linear(120, 65, bias=False), nn.Linear(65, 33)
        self.even, self.scale = nn.Linear(33, 64), nn.Parameter(torch.ones(()))
        self.rare = nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        image = x.view(len(x), 1, 8, 8).to(memory_format=torch.channels_last)
        hidden = self.drop(torch.relu(self.norm(self.deep(torch.relu(self.conv(image))))))
        pooled = nn.functional.adaptive_avg_pool2d(hidden, 2).flatten(1)
        out = self.even(torch.tanh(self.odd(self.large(pooled))))
        if torch.rand(()) > 0.7:  # in some parts, and not at all in some steps
            out = out + self.rare(out)
        found: Tensor = out * self.scale
        return found


def squared(model: nn.Module, x: Tensor) -> Tensor:
    return (model(x) - x).square().mean()


def made(optimizer: str, **options: Any) -> ft.Program:
    """Return a program for one process."""
    torch.manual_seed(0)
    given: dict[str, Any] = {"clip_norm": 0.5, "ema": ft.EMA(0.9), **options}
    return ft.program(Net(), squared, OPTIMIZERS[optimizer], **given)


def sharded(optimizer: str, shard: Any, **options: Any) -> ft.Program:
    return ft.sharded(made(optimizer, **options), ft.Placement(shard=shard), parts=PARTS)


def batches(count: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(7)
    return [torch.randn(8 + index, 64, generator=generator) for index in range(count)]


def every_case(names: list[str]) -> dict[tuple[str, str], list[Any]]:
    """Return the digests of all placements, in one launch."""
    return {
        (name, shard): after_each(sharded(name, shard), batches(2))
        for name in names
        for shard in SHARDS
    }


@pytest.mark.row(59)
@pytest.mark.sweep
@pytest.mark.parametrize(
    ("n", "names"), [(3, FOUR), (2, ["Muon and AdamW", "LAMB"]), (3, [*OPTIMIZERS]), (4, FOUR)]
)
def test_every_optimizer_has_one_digest(n: int, names: list[str]) -> None:
    alone = {name: after_each(sharded(name, "all"), batches(2)) for name in names}
    plain = {name: after_each(made(name, accumulate=PARTS), batches(2)) for name in names}
    assert [name for name in names if alone[name] != plain[name]] == []
    expected = {(name, shard): alone[name] for name in names for shard in SHARDS}
    for found in ranks.run(every_case, n, names, timeout=300):
        assert [case for case in expected if found[case] != expected[case]] == []


def held(name: str, shard: Any) -> dict[str, int]:
    """Return the bytes of each part of a state on this rank, of a model of eight equal layers."""
    layers = [nn.Linear(65, 65) for _ in range(8)]  # which four ranks cannot cut
    plain = ft.program(nn.Sequential(*layers), lambda m, x: m(x).sum(), OPTIMIZERS[name], ema=0.9)
    program = ft.sharded(plain, ft.Placement(shard=shard), parts=PARTS)
    state, _ = program.train_step(program.init(), torch.ones(4, 65))
    parts = {"params": state.params, "optimizer": state.optimizer, "ema": state.ema}
    return {
        part: sum(local(leaf).nbytes for _, leaf in tree.items(node) if isinstance(leaf, Tensor))
        for part, node in parts.items()
    }


def all_held(names: list[str]) -> dict[tuple[str, str], dict[str, int]]:
    torch.manual_seed(0)
    return {(name, shard): held(name, shard) for name in names for shard in SHARDS}


def test_memory_falls_with_the_number_of_ranks() -> None:
    n, names = 4, ["Muon and AdamW", "LAMB", "Adafactor", "AdamW", "torch AdamW", "torch Adafactor"]
    by_rank = ranks.run(all_held, n, names)
    for name in names:
        whole = by_rank[0][name, "none"]
        for shard, parts in (("optimizer", ["optimizer", "ema"]), ("all", [*whole])):
            for part in parts:
                each = [found[name, shard][part] for found in by_rank]
                if (name, part) == ("torch Adafactor", "optimizer"):
                    assert each == [whole[part]] * n  # of which functrain knows nothing
                else:  # biases are too small to belong to one rank
                    assert max(each) <= 0.27 * whole[part] + 6000


def strides(state: ft.TrainState) -> dict[str, tuple[int, ...]]:
    leaves = tree.items({"params": state.params, "optimizer": state.optimizer, "ema": state.ema})
    return {str(path): leaf.stride() for path, leaf in leaves if isinstance(leaf, Tensor)}


def kept_forms(name: str, shard: Any) -> dict[str, bool]:
    """Try what a placed state must bear; all ranks call this together."""
    program, plain = sharded(name, shard), made(name)
    first, second = batches(2)
    state, _ = program.train_step(program.init(seed=3), first)
    gathered = program.gathered(state)
    copied = ft.copy(state)
    new, _ = program.train_step(state, second)
    pickled = pickle.loads(pickle.dumps(state))
    evaluated = program.eval_step(state, first), plain.eval_step(gathered, first)
    averaged = program.eval_step(state, first, "ema"), plain.eval_step(gathered, first, "ema")
    elsewhere = [leaf for _, leaf in tree.items(attrs.asdict(state, recurse=False))]
    return {
        "placed": any(map(is_placed, elsewhere)) is (shard != "none"),
        "gathered has no placed leaf": not any(is_placed(leaf) for _, leaf in tree.items(gathered)),
        "digest": tree.digest(state) == tree.digest(gathered),
        "place is the opposite": tree.equal(program.place(gathered), state),
        "placed again": tree.equal(program.place(program.place(state)), state),
        "no difference to the whole": tree.equal(state, gathered) and tree.equal(gathered, state),
        "a difference": not tree.equal(state, new),
        "strides": strides(gathered) == strides(plain.init(seed=3)) == strides(state),
        "copied": tree.equal(copied, state),
        "pickled": tree.equal(pickled, state),
        "steps from copies": {
            tree.digest(program.train_step(one, second)[0]) for one in (copied, pickled)
        }
        == {tree.digest(new)},
        "evaluated": tree.equal(*evaluated) and tree.equal(*averaged),
        "text": "DTensor" not in repr(state) + tree.text(state),
        "evolved": tree.equal(
            program.train_step(attrs.evolve(state, params=dict(state.params)), second)[0], new
        ),
    }


def all_kept_forms() -> list[tuple[str, str, str]]:
    cases = [(name, shard) for name in ("Muon and AdamW", "Adafactor") for shard in SHARDS]
    return [
        (name, shard, what)
        for name, shard in cases
        for what, kept in kept_forms(name, shard).items()
        if not kept
    ]


@pytest.mark.sweep
@pytest.mark.parametrize("n", [3, 1])
def test_placed_states_bear_what_others_do(n: int) -> None:
    for found in ranks.run(all_kept_forms, n):
        assert [one for one in found if n > 1 or one[2] != "placed"] == []


def saved(folder: str, shard: Any) -> str:
    """Save after two steps of three, and return the digest after the third."""
    program = sharded("Muon and AdamW", shard)
    state = program.init(seed=3)
    for number, batch in enumerate(batches(3)):
        if number == 2:
            ft.save(folder, state)
        state, _ = program.train_step(state, batch)
    return tree.digest(program.gathered(state))


def resumed(folder: str, shard: Any) -> list[str]:
    """Go on from a checkpoint that was loaded whole, and from one that was loaded in its place."""
    program = sharded("Muon and AdamW", shard)
    whole = program.place(ft.load(folder, like=program.gathered(program.init())))
    placed = ft.load(folder, like=program.init())
    last = batches(3)[-1]
    return [tree.digest(program.train_step(state, last)[0]) for state in (whole, placed)]


def resumed_everywhere(folder: str) -> set[str]:
    return {found for shard in SHARDS for found in resumed(folder, shard)}


@pytest.mark.row(57)
@pytest.mark.sweep
@pytest.mark.parametrize("shard", ["all", "optimizer"])
def test_any_number_of_ranks_goes_on_from_a_checkpoint(tmp_path: Path, shard: Any) -> None:
    alone = saved(f"{tmp_path}/one", "none")
    assert ranks.run(saved, 3, f"{tmp_path}/three", shard) == [alone] * 3
    for file in (tmp_path / "one").rglob("*.safetensors"):
        twin = tmp_path / "three" / file.relative_to(tmp_path / "one")
        assert file.read_bytes() == twin.read_bytes()
    assert resumed_everywhere(f"{tmp_path}/three") == {alone}
    for n in (2, 4):
        assert ranks.run(resumed_everywhere, n, f"{tmp_path}/three") == [{alone}] * n


def places(state: ft.TrainState) -> set[int]:
    leaves = [leaf for _, leaf in tree.items(fields_of(state)) if held_here(leaf)]
    return {local(leaf).data_ptr() for leaf in leaves}


def overwritten(shard: Any) -> tuple[bool, bool, bool]:
    """Return whether a donated step reuses memory, without a new bit, and a skipped one nothing."""
    program = sharded("Muon and AdamW", shard)
    donated = ft.donated(program)
    ours, theirs = program.init(seed=3), donated.init(seed=3)
    reused = True
    for number, batch in enumerate(batches(3)):
        before = places(theirs)
        theirs, _ = donated.train_step(theirs, batch)
        ours, _ = program.train_step(ours, batch)
        after = places(theirs)
        # Forwards replace buffers, and the first step without a gradient adds a counter.
        # The first state is the user's, and its step writes to copies.
        reused = reused and (number == 0 or len(after - before) <= len(ours.buffers) + 1)
    same = tree.equal(ours, theirs)
    skipping = sharded("Muon and AdamW", shard, nonfinite="skip")
    bad = batches(1)[0]
    bad[0] = float("nan")
    skipped, _ = skipping.train_step(ours, bad)
    parts = ("params", "optimizer", "ema")
    return reused, same, all(tree.equal(getattr(ours, p), getattr(skipped, p)) for p in parts)


def held_here(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and local(leaf).numel() > 0


def overwritten_everywhere() -> list[tuple[bool, bool, bool]]:
    return [overwritten(shard) for shard in SHARDS]


def test_donated_and_skipped_steps() -> None:
    assert ranks.run(overwritten_everywhere, 3) == [[(True, True, True)] * 3] * 3
