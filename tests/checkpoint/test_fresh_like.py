"""A stepped state loads with ``like=program.init()``, and goes on as if it had never been saved."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from torch.optim import lr_scheduler

import functrain as ft
from functrain.errors import CheckpointMismatchError, ParameterMismatchError, PartialLoadWarning
from functrain.optim import from_torch, groups
from functrain.schedules import from_torch as scheduled

LR = 0.01
ADAM = from_torch(torch.optim.Adam, lr=LR)
# Two classes of a kind are enough of one package for every run of the tests.
STRANGERS = ["Prodigy", "DAdaptSGD", "SOAP", "StableSPAM", "AvaGrad", "EmoFact", "MADGRAD", "SPAM"]


def net() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3))


def program(optimizer: Any, **options: Any) -> ft.Program:
    return ft.program(net, lambda model, x: model(x).square().mean(), optimizer, **options)


def batches(count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(8, 4, generator=generator) for _ in range(count)]


def stepped(made: ft.Program, state: ft.TrainState, given: list[torch.Tensor]) -> ft.TrainState:
    for batch in given:
        state, metrics = made.train_step(state, batch)
    return made.observe(state, float(metrics["loss"]))


def check(made: ft.Program, path: Path, load: Callable[..., Any] = ft.load) -> None:
    """Save after some steps, load into a fresh state, and go on beside the one never saved."""
    given = batches(5)
    state = stepped(made, made.init(), given[:3])
    ft.save(path, state)
    loaded = load(path, like=made.init(seed=1))
    assert ft.tree.equal(state, loaded)
    ours, theirs = (stepped(made, start, given[3:]) for start in (state, loaded))
    assert ft.tree.equal(ours, theirs)


NATIVE = {
    name: cls
    for name, cls in vars(ft.optim).items()
    if inspect.isclass(cls)
    and not inspect.isabstract(cls)
    and "lr" in inspect.signature(cls).parameters
}
WRAPPED = {
    "Lookahead": lambda inner: ft.optim.Lookahead(inner, sync_period=2),
    "Float32State": ft.optim.Float32State,
    "AdaptiveGradClip": lambda inner: ft.optim.AdaptiveGradClip(inner, 0.1),
    "ClipByBlockRms": lambda inner: ft.optim.ClipByBlockRms(inner, 1.0),
}
OF_TORCH = [
    name
    for name, cls in vars(torch.optim).items()
    if inspect.isclass(cls)
    and issubclass(cls, torch.optim.Optimizer)
    and name not in ("Optimizer", "LBFGS", "SparseAdam", "Muon")
]


@pytest.mark.parametrize("name", sorted(set(NATIVE) - {"FromTorch", "Muon"}))
def test_every_optimizer(name: str, tmp_path: Path) -> None:
    check(program(NATIVE[name](lr=LR)), tmp_path / "c")


@pytest.mark.parametrize(
    ("package", "name"),
    [
        *(("torch.optim", name) for name in OF_TORCH),
        *(("pytorch_optimizer", name) for name in STRANGERS),
        *(("schedulefree", f"{name}ScheduleFree") for name in ("AdamW", "SGD", "RAdam")),
    ],
)
@pytest.mark.filterwarnings("ignore", "error::functrain.errors.FunctrainWarning")
def test_every_class_of_torch_and_some_of_others(package: str, name: str, tmp_path: Path) -> None:
    cls = getattr(pytest.importorskip(package), name)
    check(program(from_torch(cls, lr=LR), ema=0.9), tmp_path / "c")


@pytest.mark.parametrize("inner", [ADAM, ft.optim.AdamW(lr=LR)], ids=["from_torch", "native"])
@pytest.mark.parametrize("name", WRAPPED)
def test_every_wrapper(name: str, inner: Any, tmp_path: Path) -> None:
    check(program(WRAPPED[name](inner)), tmp_path / "c")


@pytest.mark.parametrize(
    "optimizer",
    [
        groups([("*bias", ADAM), ("*", ft.optim.SGD(lr=LR))]),
        groups([("*bias", ft.optim.Frozen()), ("*", ADAM)]),
        groups([("0.*", ft.optim.ClipByBlockRms(ADAM, 1.0)), ("*", groups([("*", ADAM)]))]),
        groups([(ft.optim.is_matrix, ft.optim.Muon(lr=LR)), ("*", ADAM)]),
    ],
    ids=["beside", "frozen", "nested", "muon"],
)
def test_groups(optimizer: Any, tmp_path: Path) -> None:
    check(program(optimizer, ema=0.9), tmp_path / "c")


SCHEDULERS: dict[str, dict[str, Any]] = {
    "LambdaLR": {"lr_lambda": lambda step: 0.9**step},
    "MultiplicativeLR": {"lr_lambda": lambda step: 0.9},
    "StepLR": {"step_size": 2},
    "MultiStepLR": {"milestones": [1, 3]},
    "ConstantLR": {},
    "LinearLR": {},
    "ExponentialLR": {"gamma": 0.9},
    "PolynomialLR": {},
    "CosineAnnealingLR": {"T_max": 4},
    "CosineAnnealingWarmRestarts": {"T_0": 2},
    "OneCycleLR": {"max_lr": 0.1, "total_steps": 10, "cycle_momentum": False},
    "CyclicLR": {"base_lr": 0.0, "max_lr": 0.1, "step_size_up": 1, "cycle_momentum": False},
    "ReduceLROnPlateau": {"patience": 0},
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_of_torch(name: str, tmp_path: Path) -> None:
    lr = scheduled(getattr(lr_scheduler, name), lr=LR, **SCHEDULERS[name])
    check(program(ft.optim.SGD(lr=lr)), tmp_path / "c")


class Warming:
    """A scheduler whose numbers appear when it is first stepped, as some packages' do."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer, self.numbers = optimizer, dict[str, float]()

    def step(self) -> None:
        self.numbers["taken"] = self.numbers.get("taken", 0.0) + 1
        group = self.optimizer.param_groups[0]
        group["shown"] = self.numbers["taken"]
        group["lr"] = group["lr"] * 0.9

    def get_last_lr(self) -> list[float]:
        return [self.optimizer.param_groups[0]["lr"]]

    def state_dict(self) -> dict[str, float]:
        return dict(self.numbers)

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.numbers = dict(state)


def test_a_scheduler_that_starts_without_values(tmp_path: Path) -> None:
    check(program(ft.optim.SGD(lr=scheduled(Warming, lr=LR))), tmp_path / "c")


@pytest.mark.parametrize(
    "lr",
    [
        ft.schedules.WarmupCosine(LR, warmup_steps=2),
        ft.schedules.Plateau(LR, patience=0, mode="min"),
        ft.schedules.Cosine(LR),
    ],
    ids=["open", "plateau", "cosine"],
)
def test_a_schedule_that_a_run_fills_in(lr: Any, tmp_path: Path) -> None:
    made = program(ft.optim.SGD(lr=lr))
    state = stepped(made, made.with_horizon(made.init(), 9), batches(3))
    ft.save(tmp_path / "c", state)
    assert ft.tree.equal(state, ft.load(tmp_path / "c", like=made.init()))


def test_through_the_store_of_a_run(tmp_path: Path) -> None:
    made = program(ADAM, ema=0.9)
    data = ft.data.Batches(torch.randn(32, 4), batch_size=8)
    run = ft.fit(made, data, until="6 steps", directory=tmp_path / "run", save_every="2 steps")
    state, _ = ft.Checkpoints(tmp_path / "run").restore(like=run_state(made))
    assert ft.tree.equal(state.train, run.state)


def test_the_checkpoint_of_a_run_is_more_than_a_state(tmp_path: Path) -> None:
    made, store = program(ADAM), ft.Checkpoints(tmp_path / "run")
    run = ft.fit(made, batches(4), until="2 steps", directory=store)
    for options in ({}, {"partial": True}):
        with pytest.raises(CheckpointMismatchError) as caught:
            store.restore(like=made.init(), **options)
        assert "functrain.load(path).train" in "\n".join(caught.value.__notes__)
    assert ft.tree.equal(ft.load(store.path(2)).train, run.state)


def run_state(made: ft.Program) -> ft.RunState:
    from functrain.checkpoint import Anything

    anything: Any = Anything()
    return ft.RunState(made.init(), anything, anything, anything)


class TestOptions:
    @pytest.fixture
    def state(self) -> ft.TrainState:
        return stepped(program(ADAM), program(ADAM).init(), batches(2))

    @pytest.fixture
    def path(self, state: ft.TrainState, tmp_path: Path) -> Path:
        return ft.save(tmp_path / "c", state)

    @pytest.fixture
    def like(self) -> ft.TrainState:
        return program(ADAM).init()

    @pytest.mark.parametrize(
        "options", [{"partial": True}, {"cast": True}, {"migrate": lambda x: x}]
    )
    def test_the_moments_are_kept(self, state: Any, path: Path, like: Any, options: Any) -> None:
        assert ft.tree.equal(state, ft.load(path, like=like, **options))

    @pytest.mark.parametrize("only", ["optimizer", "optimizer.*", ["optimizer*"]])
    def test_only_the_optimizer(self, state: Any, path: Path, like: Any, only: Any) -> None:
        loaded = ft.load(path, like=like, only=only)
        assert ft.tree.equal(loaded.optimizer, state.optimizer)
        assert ft.tree.equal(loaded.params, like.params)

    def test_without_the_optimizer(self, state: Any, path: Path, like: Any) -> None:
        loaded = ft.load(path, like=like, only="params")
        assert ft.tree.equal(loaded.params, state.params)
        assert ft.tree.equal(loaded.optimizer, like.optimizer)

    def test_a_parameter_of_another_name(self, state: Any, path: Path) -> None:
        made = ft.program(
            lambda: torch.nn.ModuleDict({"body": net()}),
            lambda model, x: model["body"](x).square().mean(),
            ADAM,
        )
        rename = {"params.*": "params.body.*", "optimizer.state.*": "optimizer.state.body.*"}
        loaded = ft.load(path, like=made.init(), rename=rename)
        assert ft.tree.equal(
            loaded.optimizer["state"]["body.0.weight"], state.optimizer["state"]["0.weight"]
        )
        ours, _ = program(ADAM).train_step(state, batches(1)[0])
        theirs, _ = made.train_step(loaded, batches(1)[0])
        assert ft.tree.equal(ours.params["2.bias"], theirs.params["body.2.bias"])


class TestOthers:
    """States that no step of the optimizer can reach are still refused."""

    def test_a_class_with_other_options(self, tmp_path: Path) -> None:
        made = program(from_torch(torch.optim.SGD, lr=LR, momentum=0.9))
        path = ft.save(tmp_path / "c", stepped(made, made.init(), batches(2)))
        with pytest.raises(CheckpointMismatchError, match=r"optimizer\.group: .*'betas'"):
            ft.load(path, like=program(ADAM).init())

    def test_an_optimizer_of_this_package(self, tmp_path: Path) -> None:
        made = program(ft.optim.Adam(lr=LR))
        path = ft.save(tmp_path / "c", stepped(made, made.init(), batches(2)))
        with pytest.raises(CheckpointMismatchError, match=r"optimizer\.exp_avg: unexpected"):
            ft.load(path, like=program(ADAM).init())

    def test_other_entries_of_a_group_must_fit(self, tmp_path: Path) -> None:
        first = program(groups([("*bias", ADAM), ("*", ft.optim.SGD(lr=LR, momentum=0.9))]))
        other = program(groups([("*bias", ADAM), ("*", ft.optim.Adam(lr=LR))]))
        path = ft.save(tmp_path / "c", stepped(first, first.init(), batches(2)))
        with pytest.raises(CheckpointMismatchError, match=r"optimizer\.1\.exp_avg: missing"):
            ft.load(path, like=other.init())

    def test_moments_of_other_parameters_are_refused_by_the_step(self) -> None:
        made = program(ADAM)
        state = stepped(made, made.init(), batches(1))
        moments = {**state.optimizer, "state": {"gone": state.optimizer["state"]["0.bias"]}}
        with pytest.raises(ParameterMismatchError, match="'gone'"):
            made.train_step(attrs.evolve(state, optimizer=moments), batches(1)[0])

    def test_moments_of_other_shapes_are_refused(self, tmp_path: Path) -> None:
        made = program(ADAM)
        state = stepped(made, made.init(), batches(1))
        moments = {**state.optimizer["state"], "0.bias": {"exp_avg": torch.zeros(9)}}
        optimizer = {**state.optimizer, "state": moments}
        path = ft.save(tmp_path / "c", attrs.evolve(state, optimizer=optimizer))
        like = stepped(made, made.init(), batches(1))
        with pytest.raises(CheckpointMismatchError, match=r"0\.bias\.exp_avg: expected shape"):
            ft.load(path, like=like)


def test_a_fresh_state_loads_into_a_stepped_one(tmp_path: Path) -> None:
    made = program(ADAM)
    path = ft.save(tmp_path / "c", made.init())
    like = stepped(made, made.init(), batches(2))
    assert ft.tree.equal(made.init(), ft.load(path, like=like))


def test_partial_warns_about_skipped_leaves(tmp_path: Path) -> None:
    made = program(ft.optim.SGD(lr=LR, momentum=0.9))
    path = ft.save(tmp_path / "c", stepped(made, made.init(), batches(1)))
    plain = program(ft.optim.Adam(lr=LR))
    with pytest.warns(PartialLoadWarning) as caught:
        loaded = ft.load(path, like=plain.init(), partial=True)
    (told,) = caught
    lines = str(told.message).splitlines()[1:]
    assert "  optimizer.exp_avg: not in the checkpoint, left as it is in like" in lines
    assert "  optimizer.momentum_buffer: only in the checkpoint, not loaded" in lines
    assert loaded.counters.step == 1


def test_a_class_of_torch_goes_on_with_the_options_of_the_program(tmp_path: Path) -> None:
    before, after = (
        program(from_torch(torch.optim.AdamW, lr=LR, weight_decay=decay)) for decay in (0.01, 0.9)
    )
    given = batches(2)
    first, _ = before.train_step(before.init(), given[0])
    ft.save(tmp_path / "checkpoint", first)
    state, _ = after.train_step(ft.load(tmp_path / "checkpoint", like=after.init()), given[1])
    model = net()
    model.load_state_dict(before.init().params)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.01)
    for batch, decay in zip(given, (0.01, 0.9), strict=True):
        optimizer.param_groups[0]["weight_decay"] = decay
        optimizer.zero_grad()
        model(batch).square().mean().backward()
        optimizer.step()
    assert all(torch.equal(state.params[path], each) for path, each in model.state_dict().items())


def test_a_class_with_the_same_options_is_another(tmp_path: Path) -> None:
    class Own(torch.optim.AdamW):
        """Another class with the same entries."""

    made = program(from_torch(torch.optim.AdamW, lr=LR))
    ft.save(tmp_path / "checkpoint", made.init())
    with pytest.raises(CheckpointMismatchError, match=r"expected a state of Own, .* of AdamW"):
        ft.load(tmp_path / "checkpoint", like=program(from_torch(Own, lr=LR)).init())
