"""Copying ahead changes when batches are copied, and nothing else."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from data_kinds import MAKERS, MORE_WORKERS, CutAt, SavesItselfSized, disturb

import functrain as ft
from functrain import tree
from functrain.data import Batches, as_source, prefetched
from functrain.data.prefetched import Prefetched
from functrain.errors import ConfigurationError

pytestmark = pytest.mark.row(30)


class Fake:
    """A device of lists: says what was begun and what was finished."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def begin(self, batch: Any) -> Any:
        self.log.append("begin")
        return [batch]

    def finish(self, begun: Any) -> Any:
        self.log.append("finish")
        return begun[0]


def through_fake(data: Any, depth: int = 2) -> Prefetched:
    return Prefetched(as_source(data), Fake(), depth)


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_depth_batches_are_copied_ahead(depth: int) -> None:
    source = through_fake(list(range(20)), depth)
    batches = source.epoch(0, 0, 3, None)
    assert list(islice(batches, 4)) == [3, 4, 5, 6]
    log = source.transfer.log  # type: ignore[attr-defined]
    assert log == ["begin"] * depth + ["begin", "finish"] * 4
    assert [6, *batches] == list(range(6, 20))
    assert log.count("begin") == log.count("finish") == 17


@pytest.mark.sweep("kind")
@pytest.mark.parametrize(
    ("kind", "anywhere"),
    [
        *(
            pytest.param(kind, False, marks=[pytest.mark.long] if kind in MORE_WORKERS else [])
            for kind in MAKERS
        ),
        *((kind, True) for kind in MAKERS if "workers" not in kind),
    ],
)
def test_resumption_starts_after_the_last_yielded_batch_not_the_last_read(
    kind: str, anywhere: bool
) -> None:
    make = MAKERS[kind]
    disturb(0)
    plain = as_source(make())
    expected = [list(plain.epoch(7, epoch, 0, None)) for epoch in range(2)]
    plain.close()
    cuts = range(1, len(expected[0])) if anywhere else [2]
    for cut in cuts:
        disturb(0)  # a StatefulDataLoader draws its seed when it is made
        source = through_fake(make())
        batches = source.epoch(7, 0, 0, None)
        first = list(islice(batches, cut))
        saved = source.state()
        batches.close()  # type: ignore[attr-defined]
        source.close()
        disturb(cut)
        resumed = through_fake(make())
        found = [*first, *resumed.epoch(7, 0, cut, saved)]
        assert not tree.diff([found, list(resumed.epoch(7, 1, 0, None))], expected)
        resumed.close()


@pytest.mark.parametrize("kind", ["own state", "own state and length", "DataLoader, own generator"])
def test_the_state_is_that_of_the_data_after_the_same_batch(kind: str) -> None:
    plain, source = as_source(MAKERS[kind]()), through_fake(MAKERS[kind]())
    for epoch in range(2):
        pairs = zip(plain.epoch(7, epoch, 0, None), source.epoch(7, epoch, 0, None), strict=True)
        for expected, found in pairs:
            assert not tree.diff(found, expected)
            assert not tree.diff(source.state(), plain.state())


def test_an_interrupted_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    def loss(model: Any, batch: Any) -> torch.Tensor:
        return model(batch[:, None].float()).square().mean()

    program = ft.program(torch.nn.Linear(1, 1), loss, ft.optim.SGD(lr=0.01))

    def run(directory: str, cuts: list[int]) -> ft.Run:
        for cut in [*cuts, 99]:
            result = ft.fit(
                program,
                through_fake(SavesItselfSized(3)),
                until="8 steps",
                directory=tmp_path / directory,
                listeners=[CutAt(cut)],
            )
        return result

    assert tree.diff(run("one", []).state, run("two", [1, 3, 5]).state) == []


def test_on_the_cpu_the_data_is_read_as_it_is() -> None:
    batches = Batches(torch.arange(10), 4)
    source = prefetched(batches, "cpu")
    assert not isinstance(source, Prefetched)
    assert not tree.diff(list(source.epoch(0, 0, 0, None)), list(batches))
    with pytest.raises(ConfigurationError, match="depth"):
        prefetched(batches, "cpu", depth=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_batches_arrive_on_the_gpu_unchanged() -> None:
    batches = Batches({"x": torch.randn(4096, 512), "k": torch.arange(4096)}, 64)
    source = prefetched(batches, "cuda", depth=3)
    weight = torch.randn(512, 512, device="cuda")
    for expected, batch in zip(batches, source.epoch(0, 0, 0, None), strict=True):
        assert batch["x"].is_cuda
        for _ in range(20):  # work in which the copies of the next batches fall
            weight = torch.tanh(weight @ weight)
        assert not tree.diff(tree.map(lambda leaf: leaf.cpu(), batch), expected)
    source.close()
