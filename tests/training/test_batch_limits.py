"""``limit_train_batches`` and ``limit_eval_batches``: short epochs, exact and on record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from loop_runs import PER_EPOCH, SIZE, batches, columns, loss, program
from torch.utils.data import DataLoader, TensorDataset

import functrain as ft
from functrain import tree
from functrain.checkpoint import read_manifest
from functrain.errors import ConfigurationError, RunChangedError, UnsupportedError

LIMIT = 4


class Endless:
    """Batches without a length or an end."""

    def __iter__(self) -> Any:
        x, y = columns()
        while True:
            yield x[:SIZE], y[:SIZE]


def loader(**options: Any) -> Any:
    data: Any = TensorDataset(*columns())
    return DataLoader(data, SIZE, **options)


KINDS: dict[str, Any] = {
    "batches": batches,
    "workers": lambda: batches(workers=1),
    "list": lambda: [columns()] * 9,
    "loader": lambda: loader(shuffle=True),
    "endless": Endless,
}


def fitted(directory: Path | None = None, **options: Any) -> ft.Run:
    given = {"until": "3 epochs", "limit_train_batches": LIMIT, "progress": False} | options
    return ft.fit(
        given.pop("program", None) or program(),
        given.pop("data", None) or batches(),
        directory=directory,
        **given,
    )


@pytest.mark.filterwarnings("ignore::functrain.errors.ReplayWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_an_epoch_ends_at_the_limit_and_resumes_exactly(tmp_path: Path, kind: str) -> None:
    whole = fitted(data=KINDS[kind]())
    assert (whole.state.counters.step, whole.state.counters.epoch) == (3 * LIMIT, 3)
    for until in ("2 steps", "4 steps", "7 steps", "3 epochs"):
        resumed = fitted(tmp_path, data=KINDS[kind](), until=until)
    assert tree.diff(whole.state, resumed.state) == []


def test_the_batches_are_the_first_of_each_whole_epoch() -> None:
    seen: list[torch.Tensor] = []
    keep = type("Keep", (), {"on_batch_begin": lambda self, event: seen.append(event.batch[0])})()
    fitted(listeners=[keep], until="2 epochs")
    data = batches()
    expected = [data[epoch, index][0] for epoch in range(2) for index in range(LIMIT)]
    assert all(torch.equal(a, b) for a, b in zip(seen, expected, strict=True))


def test_micro_batches_at_the_limit_make_a_step_too() -> None:
    run = fitted(program=program(accumulate=3), until="2 epochs")
    assert run.state.counters.step == 2 * 2
    parts = fitted(program=ft.sharded(program(accumulate=3, ema=0.9), parts=2), until="2 epochs")
    assert parts.state.counters.step == 2 * 2


def test_a_limit_beyond_the_epoch_changes_nothing() -> None:
    assert (
        tree.diff(fitted(limit_train_batches=99).state, fitted(limit_train_batches=None).state)
        == []
    )


def test_schedules_know_the_shorter_run() -> None:
    lr = ft.schedules.Linear(0.1, end=0.0)
    run = fitted(program=program(optimizer=ft.optim.SGD(lr=lr)), until="1 epoch")
    assert run.history["lr"][-1] == pytest.approx(0.1 / LIMIT)


def test_each_evaluation_set_reads_at_most_so_many_batches() -> None:
    sizes: list[int] = []

    def evaluate(model: Any, batch: Any) -> ft.Loss:
        sizes.append(len(batch[0]))
        return loss(model, batch)

    sets = {"few": ft.Evaluation(batches(), batches=1), "all": batches()}
    fitted(
        program=program(evaluate=evaluate), until="1 epoch", eval_data=sets, limit_eval_batches=3
    )
    assert sizes == [SIZE] * (1 + 3)


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize(
    "other",
    [
        {"limit_train_batches": None},
        {"limit_train_batches": PER_EPOCH},
        {"limit_eval_batches": 1},
    ],
)
def test_a_run_resumes_under_its_own_limits_only(
    tmp_path: Path, other: dict[str, Any], ended: bool
) -> None:
    fitted(tmp_path, until="3 epochs" if ended else "5 steps", eval_data=batches())
    store = ft.Checkpoints(tmp_path)
    manifest = read_manifest(store.path(store.steps()[-1]))
    assert manifest.info["batch_limits"] == {"limit_train_batches": LIMIT}
    with pytest.raises(RunChangedError, match=f"limit_train_batches={LIMIT}"):
        fitted(tmp_path, eval_data=batches(), **other)


def test_a_whole_run_is_not_continued_under_a_limit(tmp_path: Path) -> None:
    fitted(tmp_path, limit_train_batches=None, until="5 steps")
    with pytest.raises(RunChangedError, match="no limit of batches"):
        fitted(tmp_path)


def test_data_with_a_state_of_its_own_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="generator of its own"):
        fitted(data=loader(shuffle=True, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("name", ["limit_train_batches", "limit_eval_batches"])
@pytest.mark.parametrize("value", [0, 0.5])
def test_a_limit_is_a_positive_integer(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=name):
        fitted(**{name: value})
