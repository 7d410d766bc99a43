"""Donated states: updated in place where nobody has read them, and else left alone."""

from __future__ import annotations

import ctypes
import mmap
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor, nn

import functrain as ft
from functrain import tree
from functrain.core.state import params_of
from functrain.errors import DonatedStateError
from functrain.listeners import ProgressBar

pytestmark = pytest.mark.row(51)

DATA = [torch.randn(4, 3, generator=torch.Generator().manual_seed(i)) for i in range(6)]


def program(optimizer: Any = None, places: list[int] | None = None) -> ft.Program:
    """Return a program whose loss notes where the parameters are in memory."""

    def loss(model: Any, x: Tensor) -> Tensor:
        if places is not None:
            places.append(model[0].weight.data_ptr())
        return model(x).square().mean()

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    return ft.program(model, loss, optimizer or ft.optim.AdamW(lr=0.1), ema=0.9)


@attrs.define
class Keeps:
    """Keeps something of each state, and a copy of it."""

    what: Any
    kept: list[Any] = attrs.field(factory=list)
    copies: list[Any] = attrs.field(factory=list)

    def on_batch_end(self, event: Any) -> None:
        self.kept.append(self.what(event.state))
        self.copies.append(ft.copy(self.kept[-1]))


@pytest.mark.parametrize("transform", [lambda p: p, ft.donated], ids=["plain", "donated"])
def test_fit_updates_its_own_state_in_place(transform: Any, tmp_path: Path) -> None:
    places: list[int] = []
    own = transform(program(places=places))
    ft.fit(own, DATA, until="4 epochs", directory=tmp_path, listeners=[ProgressBar(), Counts()])
    # The first steps bind copies, and the step after a save leaves alone what is being written.
    assert len(set(places[4:6])) == 1
    assert len(set(places[4:])) <= 5


def test_a_run_without_files_and_readers_stays_in_place() -> None:
    places: list[int] = []
    ft.fit(program(places=places), DATA, until="4 epochs", listeners=[Counts()])
    assert len(set(places[4:])) == 1


@attrs.define
class Counts:
    """Reads the counters of each state, and keeps none."""

    steps: int = 0

    def on_batch_end(self, event: Any) -> None:
        self.steps = event.state.counters.step


@pytest.mark.parametrize(
    "what",
    [
        lambda state: state,
        lambda state: state.params,
        lambda state: state.params["0.weight"],
        lambda state: state.optimizer["exp_avg"],
        lambda state: state.ema["params"]["0.bias"],
        lambda state: state.buffers["1.running_mean"],
    ],
)
def test_what_a_listener_keeps_stays_as_it_was(what: Any) -> None:
    keeps = Keeps(what)
    run = ft.fit(program(), DATA, until="2 epochs", listeners=[keeps])
    assert tree.diff(keeps.kept, keeps.copies) == []
    assert tree.diff(run.state, ft.fit(program(), DATA, until="2 epochs").state) == []


def test_the_state_that_fit_was_given_stays_as_it_was() -> None:
    made = program()
    state = made.init(3)
    before = ft.copy(state)
    ft.fit(made, DATA, until="1 epoch", state=state)
    ft.fit(ft.donated(made), DATA, until="1 epoch", state=state)
    assert tree.diff(before, state) == []


SHARED = {
    "target network": lambda state: attrs.evolve(state, params={**state.params}),
    "same mappings": lambda state: attrs.evolve(state, counters=state.counters.next_epoch()),
    "views": lambda state: attrs.evolve(
        state, params={path: tensor[...] for path, tensor in state.params.items()}
    ),
    "moments": lambda state: attrs.evolve(state, optimizer={**state.optimizer}),
    "NumPy": lambda state: torch.from_numpy(state.params["0.weight"].numpy()),
    "average": lambda state: list(state.ema["params"].values()),
    "one tensor": lambda state: state.params["0.bias"],
}
COMPILED = [
    pytest.param(lambda made: made, id="eager"),
    pytest.param(lambda made: ft.compiled(made, backend="eager"), id="compiled"),
]


class TestDonatedStatesThatShareTensors:
    @pytest.mark.parametrize("compiled", COMPILED)
    @pytest.mark.parametrize("part", ["params", "average"])
    def test_a_storage_that_is_held_keeps_its_bytes(self, part: str, compiled: Any) -> None:
        donating = ft.donated(compiled(program()))
        state, _ = donating.train_step(donating.init(), DATA[0])
        held = state.params if part == "params" else state.ema["params"]
        storage = held["0.weight"].untyped_storage()
        before = storage.tolist()
        donating.train_step(state, DATA[1])
        assert storage.tolist() == before

    @pytest.mark.parametrize("compiled", COMPILED)
    @pytest.mark.parametrize("share", SHARED.values(), ids=SHARED)
    def test_the_others_keep_their_values(self, share: Any, compiled: Any) -> None:
        made = compiled(program())
        donating = ft.donated(made)
        state, _ = donating.train_step(donating.init(), DATA[0])
        pure, _ = made.train_step(ft.copy(state), DATA[1])
        kept = share(state)
        before = ft.copy(kept)
        after, _ = donating.train_step(state, DATA[1])
        assert tree.diff(kept, before) == []
        assert tree.diff(after, pure) == []

    @pytest.mark.parametrize("compiled", COMPILED)
    def test_an_average_that_is_the_parameters_moves_by_itself(self, compiled: Any) -> None:
        def synced(state: ft.TrainState) -> ft.TrainState:
            return attrs.evolve(state, ema={**state.ema, "params": {**state.params}})

        made = compiled(program())
        state, _ = made.train_step(made.init(), DATA[0])
        pure, _ = made.train_step(ft.copy(synced(state)), DATA[1])
        after, _ = ft.donated(made).train_step(synced(state), DATA[1])
        assert tree.diff(after, pure) == []

    @pytest.mark.parametrize("compiled", COMPILED)
    def test_a_state_stays_as_it_was_observed(self, compiled: Any) -> None:
        donating = ft.donated(compiled(program()))
        state, _ = donating.train_step(donating.init(), DATA[0])
        # To read state.params would lend it.
        before = {path: tensor.clone() for path, tensor in params_of(state).items()}
        donating.train_step(donating.observe(state, 1.0), DATA[1])
        assert tree.equal(dict(state.params), before)

    def test_the_donated_state_is_consumed_all_the_same(self) -> None:
        donating = ft.donated(program())
        state = donating.init()
        kept = state.params
        donating.train_step(state, DATA[0])
        with pytest.raises(DonatedStateError):
            state.params  # noqa: B018
        assert kept.keys() == donating.init().params.keys()


def test_a_target_network_of_q_learning_stays_until_it_is_synced() -> None:
    """The loop of DQN: the target is the online state of some steps ago."""

    def trained(made: ft.Program) -> list[Any]:
        online, weights = made.init(), []
        target = attrs.evolve(online, params=dict(online.params))
        for count in range(6):
            with made.evaluating(target) as model:
                goal = model(DATA[count])
            online, _ = made.train_step(online, {"x": DATA[count], "goal": goal + 1})
            if count == 3:
                target = attrs.evolve(target, params=dict(online.params))
            weights.append(ft.copy([dict(online.params), dict(target.params)]))
        return weights

    def loss(model: nn.Module, batch: Any) -> Tensor:
        return (model(batch["x"]) - batch["goal"]).square().mean()

    torch.manual_seed(0)
    made = ft.program(nn.Linear(3, 1), loss, ft.optim.Adam(lr=0.1))
    assert tree.diff(trained(ft.donated(made)), trained(made)) == []


@pytest.mark.parametrize("compiled", COMPILED)
def test_a_state_that_is_skipped_shares_nothing_that_is_written_to(compiled: Any) -> None:
    torch.manual_seed(0)
    made = compiled(
        ft.program(nn.Linear(3, 1), lambda m, x: m(x).mean(), ft.optim.SGD(0.1), nonfinite="skip")
    )
    first, _ = made.train_step(made.init(), DATA[0])
    same, _ = made.train_step(first, DATA[0] * torch.nan)
    later, _ = ft.donated(made).train_step(same, DATA[1])
    again, _ = made.train_step(first, DATA[1])
    assert tree.equal(later.params, again.params)


def test_parameters_that_another_program_froze_are_not_written_to() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    head, whole = (
        ft.program(model, lambda m, x: m(x).square().mean(), ft.optim.SGD(0.1), trainable=paths)
        for paths in ("1.*", "*")
    )
    first = head.init()
    before = ft.copy(first)
    state, _ = head.train_step(first, DATA[0])
    ft.donated(whole).train_step(state, DATA[1])
    assert tree.diff(first, before) == []


def test_a_phase_does_not_write_to_what_the_one_before_froze() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    plain = ft.program(model, lambda m, x: m(x).square().mean(), ft.optim.SGD(0.1))
    phased = ft.phases(plain, [("2 steps", "1.*"), (None, "*")])
    first = phased.init()
    before, donating = ft.copy(first), ft.donated(phased)
    state, _ = phased.train_step(first, DATA[0])
    for batch in DATA[1:]:
        state, _ = donating.train_step(state, batch)
    assert tree.diff(first, before) == []


@pytest.mark.parametrize("own", [ft.donated, lambda made: made], ids=["donated", "plain"])
def test_views_that_a_loss_keeps_stay_as_they_were(own: Any) -> None:
    kept: list[Tensor] = []
    copies: list[Tensor] = []

    def loss(model: Any, x: Tensor) -> Tensor:
        kept.append(model.weight.detach()[0])
        copies.append(kept[-1].clone())
        return model(x).square().mean()

    torch.manual_seed(0)
    made = own(ft.program(nn.Linear(3, 1), loss, ft.optim.SGD(0.1)))
    ft.fit(made, DATA, until="2 epochs")
    assert tree.diff(kept, copies) == []


def test_a_step_that_fails_while_it_writes_leaves_no_state_behind(tmp_path: Path) -> None:
    @attrs.frozen
    class Failing(ft.optim.SGD):
        def kernel(self, grads: Any, slots: Any, params: Any, lr: Any, scalars: Any) -> None:
            super().kernel(grads, slots, params, lr, scalars)
            if scalars["step"] > 3:
                raise MemoryError("while writing")

    made = program(Failing(0.1))
    with pytest.raises(MemoryError) as caught:
        ft.fit(made, DATA, until="2 epochs", directory=tmp_path, save_every="2 steps")
    assert any("the newest checkpoint stands" in note for note in caught.value.__notes__)
    assert ft.Checkpoints(tmp_path).steps() == [2]
    donating, state = ft.donated(made), made.init()
    for _ in range(3):
        state, _ = donating.train_step(state, DATA[0])
    with pytest.raises(MemoryError):
        donating.train_step(state, DATA[0])
    with pytest.raises(DonatedStateError):
        state.params  # noqa: B018


def test_a_metric_that_is_a_parameter_has_the_value_of_its_step() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, x: Tensor) -> Tensor:
            return (x * self.scale).square().mean()

    @attrs.frozen
    class Itself:
        value: Any

        def merge(self, other: Any) -> Any:
            return other

        def compute(self) -> Any:
            return self.value

    def loss(model: Any, x: Tensor) -> ft.Loss:
        metrics = {"scale": model.scale, "object": Itself(model.scale)}
        return ft.Loss(model(x), metrics=metrics)

    donating = ft.donated(ft.program(Scaled(), loss, ft.optim.SGD(0.1)))
    state = donating.init()
    for _ in range(6):
        before = float(ft.copy(state).params["scale"])
        state, metrics = donating.train_step(state, DATA[0])
        donating.train_step(ft.copy(state), DATA[0])
        assert metrics["scale"] == metrics["object"] == before


def of_a_file(values: Any, path: Path) -> Any:
    path.write_bytes(values.numpy().tobytes())
    return torch.from_file(str(path), shared=True, size=values.numel())


# Another name for the memory of a tensor, and the tensor that goes into a state.
MEMORY: dict[str, Any] = {
    "array": lambda values, path: torch.from_numpy(values.numpy()),
    "DLPack": lambda values, path: torch.from_dlpack(values.numpy()),
    "buffer": lambda values, path: torch.frombuffer(values.numpy(), dtype=values.dtype),
    "file": of_a_file,
    "shared": lambda values, path: values.share_memory_(),
}


@pytest.mark.parametrize("compiled", COMPILED)
@pytest.mark.parametrize("place", ["params", "optimizer"])
@pytest.mark.parametrize("name", MEMORY)
def test_memory_that_torch_did_not_allocate_is_not_written_to(
    name: str, place: str, compiled: Any, tmp_path: Path
) -> None:
    made = compiled(program(ft.optim.SGD(lr=0.1, momentum=0.9)))
    state, _ = made.train_step(made.init(), DATA[0])
    values = torch.arange(4.0)
    outside = MEMORY[name](values, tmp_path / "values")
    # An array or another process sees this, and no count of torch's shows it.
    seen = (ctypes.c_float * 4).from_address(outside.data_ptr())
    kept, before = outside.untyped_storage(), list(seen)
    tensors = {path: tensor.clone() for path, tensor in state.params.items()}
    moments = {path: tensor.clone() for path, tensor in state.optimizer["momentum_buffer"].items()}
    (tensors if place == "params" else moments)["0.bias"] = outside
    optimizer = {"step": state.optimizer["step"].clone(), "momentum_buffer": moments}
    state = attrs.evolve(ft.copy(state), params=tensors, optimizer=optimizer)
    del outside, values, tensors, moments, optimizer
    pure, _ = made.train_step(ft.copy(state), DATA[1])
    state, _ = ft.donated(made).train_step(state, DATA[1])
    assert list(seen) == before
    assert tree.diff(state, pure) == []
    assert kept.nbytes() == 16


@pytest.mark.parametrize("compiled", COMPILED)
@pytest.mark.parametrize("place", ["params", "optimizer"])
def test_memory_shared_with_processes_after_a_step_is_not_written_to(
    place: str, compiled: Any
) -> None:
    made = ft.donated(compiled(program(ft.optim.SGD(lr=0.1, momentum=0.9))))
    state, _ = made.train_step(made.init(), DATA[0])
    shared = state.params if place == "params" else state.optimizer["momentum_buffer"]
    # As a multiprocessing queue does with what is put into it; the map is that of the receiver.
    descriptor, size = shared["0.bias"].untyped_storage()._share_fd_cpu_()
    del shared
    with mmap.mmap(descriptor, size) as seen:
        before = bytes(seen)
        later, _ = made.train_step(state, DATA[1])
        assert bytes(seen) == before
    assert later.counters.step == 2
