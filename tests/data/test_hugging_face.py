"""Hugging Face datasets: in memory by Batches, streamed by their own state."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from data_kinds import CutAt
from late import Late
from torch.utils.data import DataLoader, default_collate

import functrain as ft
from functrain import tree
from functrain.data import Batches

datasets = Late("datasets")
pytestmark = pytest.mark.row(30)


def table(size: int = 11) -> Any:
    columns = {"x": [[float(k), 1.0] for k in range(size)], "k": list(range(size))}
    return datasets.Dataset.from_dict({**columns, "text": [f"t{k}" for k in range(size)]})


@pytest.mark.parametrize("form", [None, "torch", "numpy"])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_dataset_gives_the_batches_a_loader_would(form: str | None, workers: int) -> None:
    data = table().with_format(form)
    batches = Batches(data, 4, seed=3, workers=workers)
    for index, batch in enumerate(batches):
        expected = default_collate([data[int(row)] for row in batches.indices(0, index)])
        assert not tree.diff(batch, expected)


def test_whole_batches_are_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    getitem = datasets.Dataset.__getitem__

    def noted(self: Any, key: Any) -> Any:
        asked.append(key)
        return getitem(self, key)

    monkeypatch.setattr(datasets.Dataset, "__getitem__", noted)
    for form in (None, "torch"):
        list(Batches(table().with_format(form), 4, shuffle=False))
    assert asked == 2 * [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]


def test_samples_of_uneven_length_stay_a_list_unless_collated() -> None:
    data = datasets.Dataset.from_dict({"ids": [[1], [2, 3], [4, 5, 6]]}).with_format("torch")
    (batch,) = Batches(data, 3, shuffle=False)
    assert [ids.tolist() for ids in batch["ids"]] == [[1], [2, 3], [4, 5, 6]]

    def padded(samples: list[Any]) -> torch.Tensor:
        return torch.nn.utils.rnn.pad_sequence([sample["ids"] for sample in samples])

    (batch,) = Batches(data, 3, shuffle=False, collate=padded)
    assert batch.shape == (3, 3)


def test_a_random_transform_of_the_dataset_has_a_stream_for_each_sample() -> None:
    def noisy(rows: dict[str, Any]) -> dict[str, Any]:
        return {"k": rows["k"], "noise": [random.random() for _ in rows["k"]]}

    data = table().with_transform(noisy)

    def noise(batches: Batches) -> dict[int, float]:
        read = list(batches)
        keys = torch.cat([batch["k"] for batch in read]).tolist()
        return dict(zip(keys, torch.cat([batch["noise"] for batch in read]).tolist(), strict=True))

    expected = noise(Batches(data, 4))
    assert len(set(expected.values())) == 11
    assert noise(Batches(data, 3, shuffle=False)) == noise(Batches(data, 5, workers=1)) == expected


def loss(model: Any, batch: Any) -> torch.Tensor:
    return (model(batch["x"]) - batch["k"][:, None] / 100).square().mean()


def streamed(shards: int = 3) -> Any:
    return table(22).to_iterable_dataset(num_shards=shards)


def stateful(workers: int) -> Any:
    module = pytest.importorskip("torchdata.stateful_dataloader")
    return module.StatefulDataLoader(
        streamed().with_format("torch"), batch_size=4, num_workers=workers
    )


STREAMS: dict[str, Any] = {
    "batched": lambda: streamed().batch(4).with_format("torch"),
    "shuffled": lambda: streamed().shuffle(seed=1, buffer_size=6).batch(4).with_format("torch"),
    "mapped": lambda: streamed().map(lambda row: {"k": row["k"] + 1}).batch(4).with_format("torch"),
    "StatefulDataLoader": lambda: stateful(0),
    "StatefulDataLoader, 2 workers": lambda: stateful(2),
    "DataLoader": lambda: DataLoader(streamed().with_format("torch"), batch_size=4),
}


@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.filterwarnings("ignore::functrain.errors.ReplayWarning")
@pytest.mark.filterwarnings("ignore:Loading a state dict of a shuffle buffer")
def test_a_streamed_dataset_resumes_exactly_in_fit(kind: str, tmp_path: Path) -> None:
    program = ft.program(torch.nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.001, momentum=0.9))

    def run(directory: str, cuts: list[int]) -> tuple[ft.Run, list[Any]]:
        seen: dict[int, Any] = {}
        for cut in [*cuts, 99]:

            class Watch(CutAt):
                def on_batch_begin(self, event: Any) -> None:
                    seen[event.state.counters.step] = event.batch["k"].tolist()

            result = ft.fit(
                program,
                STREAMS[kind](),
                until="2 epochs",
                directory=tmp_path / directory,
                listeners=[Watch(cut)],
            )
        return result, [seen[step] for step in sorted(seen)]

    (straight, all_seen), (resumed, seen) = run("one", []), run("two", [2, 7])
    assert seen == all_seen
    assert tree.diff(straight.state, resumed.state) == []
