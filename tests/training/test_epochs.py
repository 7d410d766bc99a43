"""Epochs that were stepped by hand are counted, and no loop runs on without training.

Data here raises once it was asked more often than any run should need, so a loop without progress
fails at once, however slow the machine.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import functrain as ft
from functrain import errors, tree
from functrain.data import Batches, Mixture, as_source, prefetched
from functrain.finders import find_lr
from functrain.training import epoch_progress
from functrain.training.compatibility import count_epochs

LENGTH, SIZE = 19, 4
X = torch.linspace(-1, 1, 3 * 74).reshape(74, 3)  # 18 batches of 4, and one of 2
CUT = list(X.split(SIZE))
ASKED = 400


class Askable:
    """Raises when it was asked too often to be of a loop that makes progress."""

    asked = 0

    def ask(self) -> None:
        self.asked += 1
        assert self.asked < ASKED, "the loop goes on for ever"


class Guarded(Batches):
    """Batches whose length is asked for in each turn of a loop."""

    guard = Askable()

    def __len__(self) -> int:
        self.guard.ask()
        return super().__len__()


class Unknown(Askable):
    """Batches of which only reading tells how many there are."""

    def __init__(self, batches: Any = CUT) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Any]:
        self.ask()
        return iter(self.batches)


class Known(Unknown):
    def __len__(self) -> int:
        return len(self.batches)


class Lying(Unknown):
    """Says that it has more than it gives."""

    def __len__(self) -> int:
        return len(self.batches) + 2


@pytest.fixture(autouse=True)
def guarded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Guarded, "guard", Askable())
    monkeypatch.setattr(epoch_progress, "MOST_EMPTY", 100)


def batches(**options: Any) -> Batches:
    return Guarded(X, SIZE, **options)


def loader(**options: Any) -> Any:
    return DataLoader(TensorDataset(X), SIZE, **options)


def loss(model: torch.nn.Module, batch: Any) -> torch.Tensor:
    x = batch[0] if isinstance(batch, list | tuple) else batch
    return model(x).square().mean()  # type: ignore[no-any-return]


def program(**options: Any) -> ft.Program:
    torch.manual_seed(0)
    return ft.program(torch.nn.Linear(3, 1), loss, ft.optim.SGD(lr=0.01), **options)


def stepped(made: ft.Program, count: int, given: Any = None) -> ft.TrainState:
    """A state after so many steps by hand, over the same batches again and again."""
    state = made.init()
    for batch in itertools.islice(itertools.cycle(CUT if given is None else given), count):
        state, _ = made.train_step(state, batch)
    return state


def place(state: ft.TrainState) -> tuple[int, int]:
    return state.counters.epoch, state.counters.batch


def walked(made: ft.Program, state: ft.TrainState, data: Any, **options: Any) -> list[Any]:
    found = ft.iterate(made, state, data, **options)
    return [place(after) for after, _ in itertools.islice(found, ASKED)]


KINDS: dict[str, Callable[[], Any]] = {
    "Batches": batches,
    "list": lambda: CUT,
    "DataLoader": loader,
    "DataLoader with a generator": lambda: loader(
        shuffle=True, generator=torch.Generator().manual_seed(1)
    ),
    "iterable with a length": Known,
    "prefetched": lambda: prefetched(batches(), "cpu"),
    "mixture": lambda: Mixture({"a": CUT[:9], "b": CUT[9:]}),
}


@pytest.mark.filterwarnings("ignore::functrain.errors.ReplayWarning")
@pytest.mark.parametrize("kind", KINDS)
class TestCounted:
    @pytest.mark.parametrize(
        ("steps", "begins"),
        [(0, (0, 0)), (5, (0, 5)), (18, (0, 18)), (19, (1, 0)), (38, (2, 0)), (40, (2, 2))],
    )
    def test_iterate_goes_on_in_the_right_epoch(
        self, kind: str, steps: int, begins: tuple[int, int]
    ) -> None:
        made = program()
        epoch, batch = begins
        expected = [(epoch, k) for k in range(batch + 1, LENGTH)] + [(epoch + 1, 0)]
        assert walked(made, stepped(made, steps), KINDS[kind]()) == expected

    def test_so_does_fit_and_the_epochs_count(self, kind: str) -> None:
        made = program()
        state = stepped(made, 40)
        run = ft.fit(made, KINDS[kind](), until="3 epochs", state=state)
        assert (run.reason, place(run.state)) == ("max_epochs", (3, 0))
        assert (run.state.counters.step, run.state.counters.samples) == (57, 3 * len(X))

    def test_until_counts_them_too(self, kind: str) -> None:
        made = program()
        found = walked(made, stepped(made, 38), KINDS[kind](), until="3 epochs")
        assert len(found) == LENGTH
        assert walked(made, stepped(made, 38), KINDS[kind](), until="2 epochs") == []


def test_fit_and_iterate_from_there_are_the_same_bits() -> None:
    made = program()
    state = stepped(made, 40)
    *_, (last, _) = ft.iterate(made, state, batches())
    assert tree.diff(last, ft.fit(made, batches(), until="3 epochs", state=state).state) == []


def test_the_order_is_that_of_the_epoch_counted() -> None:
    data = batches(seed=3)
    made = program()
    state = stepped(made, 40)
    seen = [batch.clone() for batch in as_source(data).epoch(0, 2, 2, None)]
    for batch, (after, _) in zip(seen, ft.iterate(made, state, data), strict=True):
        state, _ = made.train_step(state, batch)
        assert tree.equal(state.params, after.params)


def test_the_state_within_an_epoch_is_not_touched() -> None:
    state = stepped(program(), 5)
    assert count_epochs(state, as_source(batches())) is state


@pytest.mark.parametrize(("accumulate", "groups", "begins"), [(2, 20, (2, 2)), (3, 13, (2, 1))])
def test_windows_of_several_batches_may_span_the_end_of_an_epoch(
    accumulate: int, groups: int, begins: tuple[int, int]
) -> None:
    made = program(accumulate=accumulate)
    state, given = made.init(), itertools.cycle(CUT)
    for _ in range(groups):
        window = ft.MicroBatches(list(itertools.islice(given, accumulate)))
        state, _ = made.train_step(state, window)
    (first, _), *rest = itertools.islice(ft.iterate(made, state, batches()), ASKED)
    assert place(first) == (begins[0], begins[1] + accumulate)
    assert place(rest[-1][0]) == (3, 0)


def test_dropped_last_batches_are_not_counted() -> None:
    made = program()
    found = walked(made, stepped(made, 37, CUT[:-1]), batches(drop_last=True))
    assert (found[0], found[-1], len(found)) == ((2, 2), (3, 0), 17)


def test_a_loader_that_keeps_its_own_state() -> None:
    torchdata = pytest.importorskip("torchdata.stateful_dataloader")
    made = program()
    data = torchdata.StatefulDataLoader(TensorDataset(X), SIZE)
    assert walked(made, stepped(made, 38), data)[0] == (2, 1)


class TestOfAnUnknownLength:
    """The end of an epoch is found by reading."""

    @pytest.mark.filterwarnings("ignore::functrain.errors.ReplayWarning")
    def test_an_epoch_that_is_over_is_followed_by_the_next(self) -> None:
        made = program()
        state = stepped(made, 19)
        found = walked(made, state, Unknown())
        assert (found[0], len(found)) == ((1, 1), LENGTH)
        run = ft.fit(made, Unknown(), until="25 steps", state=state)
        assert place(run.state) == (1, 6)

    @pytest.mark.filterwarnings("ignore::functrain.errors.ReplayWarning")
    @pytest.mark.parametrize(
        "run", [walked, lambda *a: ft.fit(*a[::2], state=a[1], until="1 epoch")]
    )
    @pytest.mark.parametrize("data", [Unknown, lambda: iter(CUT)])
    def test_whole_epochs_are_refused_with_the_remedy(self, data: Any, run: Any) -> None:
        made = program()
        with pytest.raises(errors.DataChangedError) as caught:
            run(made, stepped(made, 38), data())
        assert "after 38 batches of epoch 0" in str(caught.value)
        assert "ends after 19" in str(caught.value)
        assert "state.counters.next_epoch()" in str(caught.value)

    def test_the_remedy_helps(self) -> None:
        made = program()
        state = made.init()
        for _ in range(2):
            for batch in CUT:
                state, _ = made.train_step(state, batch)
            state = attrs.evolve(state, counters=state.counters.next_epoch())
        assert walked(made, state, Unknown())[0] == (2, 1)

    def test_batches_that_an_iterator_loses_are_said(self) -> None:
        made = program()
        with pytest.warns(errors.ReplayWarning, match="5 batches are drawn and dropped"):
            walked(made, stepped(made, 5), iter(CUT))
        with pytest.warns(errors.ReplayWarning, match="1 batch is drawn and dropped"):
            walked(made, stepped(made, 1), iter(CUT))


RUNS = [
    pytest.param(walked, id="iterate"),
    pytest.param(
        lambda made, state, data: ft.fit(made, data, until="90 epochs", state=state), id="fit"
    ),
]


@pytest.mark.parametrize("run", RUNS)
class TestOtherData:
    """Counters that do not fit the data, or may not."""

    @pytest.mark.parametrize(
        ("data", "seen"),
        [
            (lambda: Batches(X, 2 * SIZE), 152),
            (lambda: DataLoader(TensorDataset(X), 2 * SIZE), 152),
            (lambda: [X[:8]] * 7, 152),
        ],
        ids=["Batches", "DataLoader", "list"],
    )
    def test_batches_of_another_size_are_refused(self, run: Any, data: Any, seen: int) -> None:
        made = program()
        with pytest.raises(errors.InvalidPositionError) as caught:
            run(made, stepped(made, 40), data())
        said = str(caught.value)
        assert "batch 40 of epoch 0" in said
        assert f"the state has seen {2 * len(X) + 8}" in said
        assert "state.counters.next_epoch()" in said

    @pytest.mark.parametrize("kind", ["mixture", "iterable with a length"])
    def test_after_epochs_that_may_be_of_other_data_only_the_end_is_a_place(
        self, kind: str, run: Any
    ) -> None:
        made = program()
        state = stepped(made, 25)
        counters = attrs.evolve(state.counters, epoch=3)
        state = attrs.evolve(state, counters=counters)
        with pytest.raises(errors.InvalidPositionError, match="may have been of other data"):
            run(made, state, KINDS[kind]())
        over = attrs.evolve(state, counters=attrs.evolve(counters, batch=LENGTH))
        assert place(count_epochs(over, as_source(KINDS[kind]()))) == (4, 0)

    def test_the_remedy_begins_with_the_next_epoch(self, run: Any) -> None:
        made = program()
        state = stepped(made, 40)
        assert run(made, attrs.evolve(state, counters=state.counters.next_epoch()), [X[:8]] * 7)


def test_epochs_before_count_where_the_samples_are_those_of_this_data() -> None:
    made = program()
    *_, (state, _) = ft.iterate(made, made.init(), batches())
    for batch in itertools.islice(itertools.cycle(CUT), 25):
        state, _ = made.train_step(state, batch)
    assert walked(made, state, batches())[0] == (2, 7)


def test_a_collate_function_may_give_any_number_of_samples() -> None:
    twice = lambda samples: torch.cat([torch.stack([x for (x,) in samples])] * 2)  # noqa: E731
    made, data = program(), loader(collate_fn=twice)
    assert walked(made, stepped(made, 40, list(data)), data)[0] == (2, 3)


def test_an_iterable_dataset_gives_what_it_gives() -> None:
    class Lines(IterableDataset):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return len(X)

        def __iter__(self) -> Iterator[torch.Tensor]:
            return iter(X)

    made = program()
    assert walked(made, stepped(made, 38), DataLoader(Lines(), SIZE))[0] == (2, 1)


def test_a_checkpoint_from_a_longer_epoch_is_refused_with_the_remedy(tmp_path: Path) -> None:
    ft.fit(program(), batches(), until="15 steps", directory=tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(
        errors.DataChangedError, match=r"batch 15 of epoch 0.* has 10 batches"
    ) as caught:
        ft.fit(program(), Batches(X[:40], SIZE), until="30 steps", directory=tmp_path)
    assert "Give the data the run was started with" in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before


def test_minutes_pass_in_iterate(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(step=10)
    monkeypatch.setattr("functrain.training.iteration.time.monotonic", lambda: float(next(clock)))
    made = program()
    found = walked(made, made.init(), Known(), until="1 minute")
    assert 3 <= len(found) <= 6


NOTHING = X[:0]


class NoBatches:
    """A source of someone's own, whose epochs are empty."""

    length, replays = None, False

    def __init__(self) -> None:
        self.guard = Askable()

    def epoch(self, seed: int, epoch: int, start: int, saved: Any) -> Iterator[Any]:
        self.guard.ask()
        return iter(())

    def state(self) -> None: ...

    def close(self) -> None: ...


class NoSamples:
    """A sampler that says it has some."""

    def __init__(self) -> None:
        self.guard = Askable()

    def __len__(self) -> int:
        return 8

    def indices(self, epoch: int, start: int, stop: int) -> list[int]:
        self.guard.ask()
        return []


class NoLength(NoSamples):
    def __len__(self) -> int:
        return 0


class Once(Unknown):
    """Gives its batches in the first pass only, and is no iterator."""

    def __iter__(self) -> Iterator[Any]:
        self.ask()
        return iter(CUT if self.asked == 1 else [])


class Stateful(Unknown):
    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def exhausted() -> Iterator[Any]:
    found = iter(CUT)
    list(found)
    return found


def without_end() -> Iterator[Any]:
    for _ in range(ASKED):
        yield NOTHING
    raise AssertionError("the loop goes on for ever")


EMPTY: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "list": (list, errors.EmptyDatasetError, "empty list"),
    "tuple": (tuple, errors.EmptyDatasetError, "empty tuple"),
    "loader": (
        lambda: DataLoader(TensorDataset(X), SIZE, sampler=[]),
        errors.EmptyDatasetError,
        "empty DataLoader.*sampler",
    ),
    "loader without a full batch": (
        lambda: DataLoader(TensorDataset(X), 100, drop_last=True),
        errors.EmptyDatasetError,
        "drop_last",
    ),
    "iterable": (lambda: Unknown([]), errors.EmptyDatasetError, "each time it is iterated"),
    "iterable that says it has some": (
        lambda: Lying([]),
        errors.EmptyDatasetError,
        "each time it is iterated",
    ),
    "with state": (lambda: Stateful([]), errors.EmptyDatasetError, "each time it is iterated"),
    "iterator": (exhausted, errors.EmptyDatasetError, "can be iterated again"),
    "source": (NoBatches, errors.EmptyDatasetError, "no batch in epoch 0"),
    "sampler": (
        lambda: Batches(X, SIZE, sampler=NoSamples()),
        errors.BatchIndexError,
        "expected 8 samples",
    ),
    "sampler of no length": (
        lambda: Batches(X, SIZE, sampler=NoLength()),
        errors.EmptyDatasetError,
        "sampler has no samples",
    ),
    "batches": (
        lambda: Known([NOTHING] * 3),
        errors.EmptyDatasetError,
        "3 batches in a row without samples in epoch 0",
    ),
    "batches of unknown number": (
        lambda: Unknown([NOTHING] * 3),
        errors.EmptyDatasetError,
        "3 batches in a row without samples in epoch 0",
    ),
    "batches without end": (without_end, errors.EmptyDatasetError, "batches .*in a row"),
    "mixture of lists": (
        lambda: Mixture([[], []], weights="uniform", length=5),
        errors.EmptyDatasetError,
        "empty list",
    ),
    "mixture of iterables": (
        lambda: Mixture([Unknown([]), Unknown([])], weights="uniform", length=5),
        errors.EmptyDatasetError,
        "each time it is iterated",
    ),
    "mixture of sources": (
        lambda: Mixture([NoBatches()], weights="uniform", length=5),
        errors.EmptyDatasetError,
        "source of the mixture",
    ),
    "mixture of empty batches": (
        lambda: Mixture([[NOTHING]], weights="uniform", length=5),
        errors.EmptyDatasetError,
        "5 batches in a row",
    ),
}
WAYS: dict[str, Callable[[ft.Program, Any], object]] = {
    "iterate": lambda made, data: list(ft.iterate(made, made.init(), data)),
    "iterate by steps": lambda made, data: [
        *ft.iterate(made, made.init(), data, until="100 steps")
    ],
    "iterate by time": lambda made, data: [*ft.iterate(made, made.init(), data, until="1 minute")],
    "fit": lambda made, data: ft.fit(made, data, until="1 epoch"),
    "fit by steps": lambda made, data: ft.fit(made, data, until="100 steps"),
    "fit by samples": lambda made, data: ft.fit(made, data, until="100 samples"),
    "fit by time": lambda made, data: ft.fit(made, data, until="1 minute"),
    "find_lr": lambda made, data: find_lr(made, made.init(), data),
    "evaluate": lambda made, data: ft.evaluate(made, made.init(), data),
}


@pytest.mark.row(11)
@pytest.mark.filterwarnings("ignore::functrain.errors.EmptyBatchWarning")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", EMPTY)
def test_data_without_samples_is_refused(kind: str, way: str) -> None:
    made = program()
    data, error, said = EMPTY[kind]
    if way == "evaluate" and "no batch" in said:
        said = "evaluation data gave no batch"
    elif way == "evaluate" and said[0].isdigit():
        assert ft.evaluate(made, made.init(), data()) == {}  # with a warning each
        return
    with pytest.raises(error, match=said):
        WAYS[way](made, data())


@pytest.mark.row(11)
@pytest.mark.parametrize("until", ["100 steps", "100 samples", "9 minutes", "9 epochs"])
@pytest.mark.parametrize(
    ("data", "error"),
    [
        (lambda: iter(CUT), errors.DataChangedError),
        (lambda: (batch for batch in CUT), errors.DataChangedError),
        (Once, errors.EmptyDatasetError),
        (lambda: Mixture([Once()], weights="uniform", length=100), errors.EmptyDatasetError),
    ],
    ids=["iterator", "generator", "iterable", "mixture"],
)
def test_data_that_ends_before_the_run_does_is_refused(data: Any, error: Any, until: str) -> None:
    with pytest.raises(error):
        ft.fit(program(), data(), until=until)
    made = program()
    with pytest.raises(error):
        list(itertools.islice(ft.iterate(made, made.init(), data(), until=until), ASKED))


@pytest.mark.row(11)
def test_evaluation_data_without_batches_is_refused_before_the_run_begins() -> None:
    data = Known()
    with pytest.raises(errors.EmptyDatasetError, match="empty DataLoader"):
        ft.fit(program(), data, until="1 epoch", eval_data=DataLoader(TensorDataset(X), sampler=[]))
    assert data.asked == 0


@pytest.mark.filterwarnings("ignore::functrain.errors.ReplayWarning")
@pytest.mark.filterwarnings("ignore::functrain.errors.EmptyBatchWarning")
def test_an_epoch_may_end_with_empty_batches() -> None:
    made = program()
    data = Known([*CUT[:2], NOTHING, NOTHING])
    state = stepped(made, 2)
    run = ft.fit(made, data, until="2 epochs", state=state)
    assert (run.state.counters.step, run.state.counters.empty) == (4, 4)


def test_a_permutation_has_no_places_beyond_its_size() -> None:
    order = ft.data.Permutation(10, 0, 0)
    assert sorted(order.indices(0, 10).tolist()) == list(range(10))
    assert len(order.indices(12, 12)) == 0
    with pytest.raises(errors.BatchIndexError, match="no positions 8 to 11 of 10 samples"):
        order.indices(8, 12)
