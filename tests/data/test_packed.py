"""Documents packed into rows: nothing is lost, nothing comes twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import functrain as ft
from functrain import tree
from functrain.data import Batches, Documents, Packed
from functrain.errors import ConfigurationError

CORPUS = [[1, 2, 3, 4], [5], [], [6, 7, 8, 9, 10, 11, 12], [13, 14]]
ENDS = np.cumsum([len(document) for document in CORPUS])
FLAT = [token for document in CORPUS for token in document]
FORMS: dict[str, Any] = {
    "lists": CORPUS,
    "tensors": [torch.tensor(document) for document in CORPUS],
    "arrays": [np.array(document, dtype=np.uint16) for document in CORPUS],
    "documents": Documents(np.array(FLAT, dtype=np.int32), ENDS),
}


def stream(separator: int | None) -> list[int]:
    end = [] if separator is None else [separator]
    return [token for document in CORPUS for token in [*document, *end]]


@pytest.mark.parametrize("documents", FORMS.values(), ids=FORMS.keys())
@pytest.mark.parametrize("separator", [None, 0])
@pytest.mark.parametrize("length", [1, 3, 5, 13])
def test_rows_are_consecutive_tokens(documents: Any, separator: int | None, length: int) -> None:
    expected = stream(separator)
    rows = Packed(documents, length, separator=separator, drop_last=False, padding=99)
    inputs = torch.cat([rows[k][0] for k in range(len(rows))]).tolist()
    targets = torch.cat([rows[k][1] for k in range(len(rows))]).tolist()
    n = len(expected) - 1
    assert inputs[:n] == expected[:-1]
    assert targets[:n] == expected[1:]
    assert set(inputs[n:]) <= {99}
    assert set(targets[n:]) <= {-100}
    assert len(inputs) - n < length
    whole = Packed(documents, length, separator=separator)
    assert len(whole) == n // length
    assert not any(tree.diff(whole[k], rows[k]) for k in range(n // length))


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.int64])
def test_a_file_is_mapped_and_only_what_is_read_is_copied(tmp_path: Path, dtype: Any) -> None:
    file = tmp_path / "tokens.bin"
    (np.arange(1000) % 251).astype(dtype).tofile(file)
    tokens = np.memmap(file, dtype=dtype, mode="r")
    batches = Batches(Packed(tokens, 100), 3, shuffle=False)
    inputs, targets = batches[0, 1]
    assert inputs.dtype == targets.dtype == torch.int64
    assert inputs.flatten().tolist() == [k % 251 for k in range(300, 600)]
    assert targets.flatten().tolist() == [k % 251 for k in range(301, 601)]
    documents = Documents(tokens, [400, 1000])
    assert np.shares_memory(documents[1], tokens)
    assert documents[1].shape == (600,)


def test_boundaries_keep_attention_within_documents() -> None:
    rows = Packed(CORPUS, 5, separator=0, boundaries=True, drop_last=False)
    found = [[part.tolist() for part in rows[k]] for k in range(len(rows))]
    assert [row[0] for row in found] == [
        [1, 2, 3, 4, 0],
        [5, 0, 0, 6, 7],
        [8, 9, 10, 11, 12],
        [0, 13, 14, 0, 0],
    ]
    assert [row[2] for row in found] == [
        [0, 0, 0, 0, 0],
        [1, 1, 2, 3, 3],
        [3, 3, 3, 3, 3],
        [3, 4, 4, -1, -1],
    ]
    assert [row[3] for row in found] == [
        [0, 1, 2, 3, 4],
        [0, 1, 0, 0, 1],
        [0, 1, 2, 3, 4],
        [0, 0, 1, 0, 0],
    ]


@pytest.mark.parametrize("workers", [0, 1])
def test_rows_come_in_batches_as_one_by_one(workers: int) -> None:
    rows = Packed(CORPUS, 2, separator=0, boundaries=True)
    batches = Batches(rows, 3, seed=1, workers=workers)
    one_by_one = Batches(rows, 3, seed=1, transform=lambda row: row)
    assert not tree.diff([tuple(b) for b in one_by_one], list(batches))


def test_padding_does_not_contribute_to_the_loss() -> None:
    _, targets = Packed(torch.tensor([1, 2, 0]), 4, drop_last=False)[0]
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(F.cross_entropy(logits, targets), F.cross_entropy(logits[:2], targets[:2]))


def test_a_program_trains_on_rows() -> None:
    model = torch.nn.Sequential(torch.nn.Embedding(16, 8), torch.nn.Linear(8, 16))

    def loss(model: Any, batch: Any) -> torch.Tensor:
        inputs, targets = batch
        return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())

    program = ft.program(model, loss, ft.optim.SGD(lr=0.1))
    run = ft.fit(program, Batches(Packed(CORPUS, 3, drop_last=False), 2), until="2 epochs")
    assert run.state.counters.samples == 10


@pytest.mark.parametrize(
    ("documents", "options"),
    [
        ([[1]], {}),
        ([], {}),
        (torch.tensor([1, 2]), {}),
        (torch.tensor([1]), {"drop_last": False}),
        (torch.tensor([1, 2]), {"length": 0}),
    ],
)
def test_too_few_tokens_make_no_rows(documents: Any, options: Any) -> None:
    with pytest.raises(ConfigurationError):
        Packed(documents, **{"length": 2, **options})


def test_the_last_row_is_padded() -> None:
    with pytest.raises(IndexError, match="there are 3"):
        Packed(CORPUS, 4)[3]
    assert repr(Packed(CORPUS, 4)) == "Packed(5 documents, 14 tokens, 3x4)"
