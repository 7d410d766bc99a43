"""Pure functions of the user over a tree: driven by the loop, held to the laws, refused by name."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, NamedTuple

import attrs
import numpy as np
import own_programs as own
import pytest
import torch
from torch import Tensor, nn

import functrain as ft
from functrain import errors, testing, tree


@attrs.frozen(eq=False)
class Clusters:
    """Centres of k-means, and how many samples each has seen."""

    centres: Tensor
    counts: Tensor


class Search(NamedTuple):
    """An evolution strategy: a mean, a spread and the best value so far."""

    mean: Tensor
    spread: float
    best: float


def begin(seed: int) -> Clusters:
    return Clusters(torch.randn(3, 2), torch.zeros(3, dtype=torch.int64))


def k_means(tree: Clusters, batch: Tensor, rng: torch.Generator) -> Any:
    nearest = torch.cdist(batch, tree.centres).argmin(1)
    counts = tree.counts + torch.bincount(nearest, minlength=3)
    moves = torch.zeros_like(tree.centres).index_add(0, nearest, batch - tree.centres[nearest])
    centres = tree.centres + moves / counts.clamp(min=1)[:, None]
    return Clusters(centres, counts), {"moved": moves.norm()}


def inertia(tree: Clusters, batch: Tensor, rng: torch.Generator) -> Any:
    return ft.Loss(torch.cdist(batch, tree.centres).amin(1).square().mean())


def evolution(tree: Search, batch: Tensor, rng: torch.Generator) -> Any:
    tries = tree.mean + tree.spread * torch.randn(6, 2, generator=rng)
    values = (tries - batch.mean(0)).square().sum(1)
    best = float(values.min())
    spread = tree.spread * (0.9 if best < tree.best else 1.05)
    return Search(tries[values.argsort()[:2]].mean(0), spread, best), {"loss": values.min()}


def by_gradient(tree: Any, batch: Tensor, rng: torch.Generator) -> Any:
    w = tree["w"].detach().requires_grad_()
    loss = (w - batch).square().mean() + torch.nn.functional.dropout(w, 0.5).sum() * 0.01
    (grad,) = torch.autograd.grad(loss, w)
    return {**tree, "w": w - 0.1 * grad}, {"loss": loss}


def clusters() -> Any:
    return ft.custom(begin, k_means, inertia)


def search() -> Any:
    return ft.custom(lambda seed: Search(torch.zeros(2), 1.0, float("inf")), evolution)


def gradient() -> Any:
    return ft.custom(lambda seed: {"w": torch.zeros(2), "names": ["w"], "none": None}, by_gradient)


MADE = {"clusters": clusters, "search": search, "gradient": gradient}
each = pytest.mark.parametrize("make", MADE.values(), ids=list(MADE))


def make_clusters() -> dict[str, Any]:
    data = own.data()
    return {"program": clusters(), "data": data, "eval_data": data, "save_every": "3 steps"}


def make_search() -> dict[str, Any]:
    return {"program": search(), "data": own.data(), "save_every": "3 steps"}


@each
def test_is_pure_complete_and_resumable(make: Any) -> None:
    program = make()
    state = program.init(seed=1)
    testing.check_pure(program, state, own.X[:8])
    testing.check_complete((program, own.data()))
    testing.check_resumes(lambda: {"program": make(), "data": own.data()}, steps=9, cuts=[2, 5])


@pytest.mark.long
@pytest.mark.parametrize("make", [make_clusters, make_search])
def test_resumes_after_a_kill(make: Any) -> None:
    testing.check_resumes(make, steps=10, cuts=[5], kill=True)


@each
def test_fifty_steps_are_those_of_a_loop_by_hand(make: Any) -> None:
    program = make()
    run = ft.fit(program, own.data(), until="50 steps", progress=False)
    expected = program.init().tree
    for number, batch in own.batches(50):
        rng = torch.Generator().manual_seed(run.state.rng.stream("rng", "step", number))
        torch.manual_seed(run.state.rng.stream("step", number))
        expected, _ = program.step(expected, batch, rng)
    assert tree.equal(run.state.tree, tree.map(_detached, expected))
    assert not any(isinstance(x, Tensor) and x.requires_grad for _, x in tree.items(run.state))


@pytest.mark.parametrize("trains", [True, False])
def test_parameters_are_the_tensors_in_them(trains: bool, tmp_path: Path) -> None:
    def moved(tree: Any, batch: Tensor, rng: torch.Generator) -> Any:
        return {"w": nn.Parameter(tree["w"] + 1, requires_grad=trains)}, {}

    made = ft.custom(lambda seed: {"w": nn.Parameter(torch.zeros(2))}, moved)
    ft.fit(made, [torch.ones(1)], until="1 step", directory=tmp_path)
    run = ft.fit(made, [torch.ones(1)], until="3 steps", directory=tmp_path)
    assert type(run.state.tree["w"]) is Tensor
    assert run.state.tree["w"].tolist() == [3, 3]


def _detached(leaf: Any) -> Any:
    return leaf.detach() if isinstance(leaf, Tensor) else leaf


def test_a_run_in_a_directory(tmp_path: Path) -> None:
    arguments = {**make_clusters(), "directory": tmp_path, "progress": False}
    run = ft.fit(**arguments, until="3 epochs", restore_best=True, early_stop=ft.EarlyStop("loss"))
    assert run.history["eval/loss"][-1] < run.history["eval/loss"][0]
    assert run.state.counters.samples == 8 * run.state.counters.step
    ft.save(tmp_path / "own", run.state)
    loaded = ft.load(tmp_path / "own", like=run.state)
    assert isinstance(loaded.tree, Clusters)
    assert tree.equal(loaded, run.state)
    found = ft.evaluate(clusters(), loaded, own.data())
    by_hand = inertia(loaded.tree, own.X, torch.Generator()).value
    torch.testing.assert_close(found["loss"], by_hand.item(), check_dtype=False)


def test_evaluations_may_have_no_loss_and_are_weighted_by_samples() -> None:
    def mean(tree: Any, batch: Tensor, rng: torch.Generator) -> Any:
        return {"mean": batch.mean()}

    program = attrs.evolve(clusters(), evaluate=mean)
    state = program.init()
    found = ft.evaluate(program, state, [own.X[:6], own.X[6:8]])
    torch.testing.assert_close(found, {"mean": own.X[:8].double().mean().item()}, rtol=1e-6, atol=0)
    assert list(program.eval_step(state, own.X)) == ["mean"]
    metric = attrs.evolve(program, evaluate=lambda *_: {"spread": ft.metrics.Mean.of(own.X)})
    assert list(ft.evaluate(metric, state, own.data())) == ["spread"]
    other = ft.Evaluation(own.data(), function=inertia)
    run = ft.fit(search(), own.data(), until="1 step", progress=False)
    assert run.state.counters.step == 1
    assert ft.fit(program, own.data(), until="1 step", eval_data=other, progress=False).history[
        "eval/loss"
    ]


def test_seeds_decide_and_iterate_goes_on() -> None:
    program = clusters()
    assert not tree.equal(program.init(0).tree, program.init(1).tree)
    before = torch.get_rng_state()
    state = program.init(0)
    for state, metrics in ft.iterate(program, state, own.data()):
        assert metrics["moved"].ndim == 0
    assert torch.equal(before, torch.get_rng_state())
    assert state.counters.epoch == 1
    fork = ft.fork(state, seed=5)
    assert fork.rng.seed == 5
    assert tree.equal(fork.tree, state.tree)
    many, rows = ft.steps(program, program.init(0), list(own.X.split(own.SIZE)))
    assert tree.equal(many.tree, state.tree)
    assert rows["moved"].shape == (8,)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda t: ({"w": t["w"], "names": ["w"], "non": None}, {}), "state.tree.none is missing"),
        (
            lambda t: ({"w": t["w"], "names": ["w"], "non": None}, {}),
            "state.tree.non is unexpected (did you mean 'none'?)",
        ),
        (
            lambda t: ({**t, "w": t["w"][None]}, {}),
            "state.tree.w has the shape [1, 2], expected [2]",
        ),
        (
            lambda t: ({**t, "w": t["w"].double()}, {}),
            "state.tree.w has the dtype torch.float64, expected torch.float32",
        ),
        (
            lambda t: ({**t, "names": ("w",)}, {}),
            "state.tree.names is a tuple, expected a list",
        ),
        (
            lambda t: ({**t, "w": 1.0}, {}),
            "state.tree.w is a float, expected a tensor of shape [2]",
        ),
        (lambda t: t, "train_step must return (tree, metrics)"),
        (lambda t: (t, {"loss": "small"}), "'loss' is a str"),
    ],
)
def test_a_wrong_result_is_refused_by_path(wrong: Any, words: str) -> None:
    program = attrs.evolve(gradient(), step=lambda tree, batch, rng: wrong(tree))
    with pytest.raises(errors.StepResultError) as caught:
        program.train_step(program.init(), own.X[:8])
    assert words in str(caught.value)


@pytest.mark.parametrize("part", ["step", "evaluate"])
def test_a_function_that_writes_to_the_tree_is_refused(part: str) -> None:
    def writing(tree: Any, batch: Tensor, rng: torch.Generator) -> Any:
        tree["w"].add_(batch.mean())
        return (tree, {}) if part == "step" else {}

    program = attrs.evolve(gradient(), **{part: writing})
    call = program.train_step if part == "step" else program.eval_step
    with pytest.raises(errors.ImpurityError, match=r"state\.tree\.w was changed in place"):
        call(program.init(), own.X[:8])


@attrs.define(eq=False)
class Running:
    """An accumulator that is not frozen."""

    total: float


def appends(tree: Any) -> None:
    tree["list"].append(1.0)


def sets_an_item(tree: Any) -> None:
    tree["list"][0] = 5.0


def sets_a_field(tree: Any) -> None:
    tree["nested"][0].total += 1


def adds_to_an_array(tree: Any) -> None:
    tree["array"] += 1


def sets_an_element(tree: Any) -> None:
    tree["nested"][1][1] = math.nan


def of_many_kinds(seed: int) -> Any:
    nested = (Running(0.0), np.zeros(2, dtype=np.float32))
    return {"list": [0.0, 0.0], "array": np.zeros(3), "nested": nested}


@pytest.mark.parametrize("part", ["step", "evaluate"])
@pytest.mark.parametrize(
    ("write", "words"),
    [
        (appends, r"state\.tree\.list was changed in place: make another one, \[\*x, y\]"),
        (sets_an_item, r"state\.tree\.list was changed"),
        (sets_a_field, r"state\.tree\.nested\.0 was changed in place: .*attrs\.evolve"),
        (adds_to_an_array, r"state\.tree\.array was changed in place: compute another array"),
        (sets_an_element, r"state\.tree\.nested\.1 was changed"),
    ],
)
def test_writes_to_lists_objects_and_arrays_are_refused(part: str, write: Any, words: str) -> None:
    def writing(tree: Any, batch: Tensor, rng: torch.Generator) -> Any:
        write(tree if write is not adds_to_an_array else dict(tree))
        return (tree, {}) if part == "step" else {}

    program = attrs.evolve(gradient(), begin=of_many_kinds, **{part: writing})
    call = program.train_step if part == "step" else program.eval_step
    with pytest.raises(errors.ImpurityError, match=words):
        call(program.init(), own.X[:8])


def test_lists_and_arrays_as_values(tmp_path: Path) -> None:
    def counted(tree: Any, batch: Tensor, rng: torch.Generator) -> Any:
        first, *rest = tree["list"]
        return {**tree, "list": [*rest, first + 1.0], "array": tree["array"] + 0.5}, {}

    program = ft.custom(of_many_kinds, counted)
    testing.check_pure(program, program.init(), own.X[:8])
    make = lambda: {"program": program, "data": own.data()}  # noqa: E731
    testing.check_resumes(make, steps=5, cuts=[2])
    run = ft.fit(program, own.data(), until="3 steps", progress=False)
    assert run.state.tree["list"] == [1.0, 2.0]
    assert run.state.tree["array"].tolist() == [1.5] * 3


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros(5), r"state.tree.array has the shape [5], expected [3]"),
        (np.zeros(3, dtype=np.int32), "state.tree.array has the dtype int32, expected float64"),
        (torch.zeros(3), "state.tree.array is a tensor of shape [3], expected an array of shape"),
    ],
)
def test_an_array_of_another_kind_is_refused(array: Any, words: str) -> None:
    program = ft.custom(of_many_kinds, lambda tree, batch, rng: ({**tree, "array": array}, {}))
    with pytest.raises(errors.StepResultError) as caught:
        program.train_step(program.init(), own.X[:8])
    assert words in str(caught.value)


def test_the_batch_stays_as_it_is() -> None:
    def writing(tree: Any, batch: Tensor, rng: torch.Generator) -> Any:
        batch.zero_()
        return tree, {}

    batch = own.X[:8].clone()
    program = attrs.evolve(gradient(), step=writing)
    program.train_step(program.init(), batch)
    assert tree.equal(batch, own.X[:8])


def test_a_step_with_a_memory_is_found() -> None:
    seen: list[float] = []

    def remembering(tree: Any, batch: Tensor, rng: torch.Generator) -> Any:
        seen.append(1.0)
        return {**tree, "w": tree["w"] + len(seen)}, {}

    program = attrs.evolve(gradient(), step=remembering)
    with pytest.raises(errors.ImpurityError, match=r"tree\['w'\] differs"):
        testing.check_pure(program, program.init(), own.X[:8])
    with pytest.raises(errors.ImpurityError, match=r"\['w'\] differs"):
        ft.checked(program).train_step(program.init(), own.X[:8])
    with pytest.raises(errors.IncompleteError, match="seen"):
        testing.check_complete((program, own.data()))


def by_data(tensor: Tensor) -> None:
    tensor.data.add_(1)


def by_numpy(tensor: Tensor) -> None:
    tensor.numpy()[...] += 1


@pytest.mark.parametrize("write", [by_data, by_numpy])
@pytest.mark.parametrize("kind", ["custom", "joint", "lent"])
def test_writes_that_torch_does_not_count_are_found(write: Any, kind: str) -> None:
    def shifted(tree: Any, batch: Any, rng: Any) -> Any:
        write(tree["w"])
        return {"w": tree["w"].clone()}, {}

    def joint_step(programs: Any, states: Any, batch: Any, rng: Any) -> Any:
        g = states["g"]
        if kind == "joint":
            write(g.params["weight"])
        else:
            with programs["g"].module(g) as module:
                write(module.weight)
        new, metrics = programs["g"].train_step(g, batch)
        return {**states, "g": new}, metrics

    custom = ft.custom(lambda seed: {"w": torch.zeros(2)}, shifted)
    squared = lambda model, batch: model(batch).square().mean()  # noqa: E731
    one = ft.program(nn.Linear(2, 1), squared, ft.optim.SGD(lr=0.1))
    program: Any = custom if kind == "custom" else ft.joint({"g": one}, step=joint_step)
    where = "state.tree['w']" if kind == "custom" else "state.g.params['weight']"
    with pytest.raises(errors.ImpurityError, match=re.escape(where)):
        testing.check_pure(program, program.init(), torch.ones(3, 2))
    with pytest.raises(errors.ImpurityError, match=re.escape(where)):
        ft.checked(program).train_step(program.init(), torch.ones(3, 2))


def test_a_donated_joint_step_may_be_checked() -> None:
    program = ft.donated(ft.checked(own.gan()))
    plain, _ = own.gan().train_step(own.gan().init(), own.X[:8])
    state, _ = program.train_step(program.init(), own.X[:8])
    assert tree.equal(state, plain)


def test_what_no_checkpoint_can_hold_is_refused_at_the_beginning() -> None:
    program = attrs.evolve(gradient(), begin=lambda seed: {"net": nn.Linear(2, 1), "w": object()})
    with pytest.raises(errors.StepResultError) as caught:
        program.init()
    assert "init(seed).net is a Linear, which has a state of its own" in str(caught.value)
    assert "init(seed).w is a object" in str(caught.value)


def test_the_tree_of_init_is_copied() -> None:
    weight = torch.zeros(2)
    program = ft.custom(lambda seed: {"w": weight}, by_gradient)
    state = program.init()
    weight.add_(1)
    assert state.tree["w"].tolist() == [0, 0]


def test_calls_that_do_not_fit() -> None:
    program = gradient()
    with pytest.raises(errors.ConfigurationError, match=r"train_step: expected a function \(tree,"):
        ft.custom(begin, lambda tree, batch: (tree, {}))  # type: ignore[arg-type,misc]
    with pytest.raises(errors.ConfigurationError, match="init: expected a function"):
        ft.custom({"w": 1}, by_gradient)  # type: ignore[arg-type]
    with pytest.raises(errors.UnsupportedError, match="expected a CustomState, got a dict"):
        program.train_step({"w": torch.zeros(2)}, own.X)
    with pytest.raises(errors.ConfigurationError, match="no evaluation"):
        program.eval_step(program.init(), own.X)
    with pytest.raises(errors.ConfigurationError, match="expected 'params'"):
        clusters().eval_step(clusters().init(), own.X, weights="ema")
    with pytest.raises(errors.ConfigurationError, match="donated"):
        ft.donated(program)
    with pytest.raises(errors.UnsupportedError, match="compiled: expected the program of one"):
        ft.compiled(program)
    with pytest.raises(errors.UnsupportedError, match="predict: expected"):
        ft.predict(program, program.init(), own.data())  # type: ignore[arg-type]
    with pytest.raises(errors.ConfigurationError, match="no evaluation"):
        ft.fit(program, own.data(), until="1 step", eval_data=own.data(), progress=False)


def test_a_batch_without_samples_is_counted() -> None:
    program = clusters()
    state = program.init()
    with pytest.warns(errors.EmptyBatchWarning):
        after, _ = program.train_step(state, own.X[:0])
    assert (after.counters.step, after.counters.empty) == (0, 1)


def test_evaluations_may_differentiate() -> None:
    def residual(tree: Any, batch: Tensor, rng: torch.Generator) -> Any:
        x = batch.clone().requires_grad_()
        (slope,) = torch.autograd.grad((x * tree["w"]).sin().sum(), x)
        return {"residual": slope.square().mean()}

    program = attrs.evolve(gradient(), evaluate=residual)
    with torch.no_grad():
        found = program.eval_step(program.init(), own.X)
    assert not found["residual"].requires_grad


def begin_at_zero(seed: int) -> dict[str, Tensor]:
    return {"total": torch.zeros(())}


def of_logarithm(tree: Any, batch: Tensor, rng: torch.Generator) -> Any:
    """Report a loss that is NaN for values below 0, of which the tree becomes NaN, too."""
    loss = batch.log().mean()
    return {"total": tree["total"] + loss}, {"loss": loss}


DATA = [torch.ones(2), torch.full((2,), 2.0), -torch.ones(2), torch.full((2,), 3.0)]


class TestALossThatIsNotFinite:
    def test_ends_a_run_at_that_step(self, tmp_path: Path) -> None:
        made = ft.custom(begin_at_zero, of_logarithm)
        with pytest.warns(errors.NonFiniteWarning, match="step 2: the custom step reported a loss"):
            run = ft.fit(made, DATA, until="1 epoch", directory=tmp_path)
        assert (run.reason, run.state.counters.step) == ("nonfinite", 2)
        assert run.state.tree["total"].isfinite()
        with pytest.raises(errors.NonFiniteError, match="nan") as caught:
            made.train_step(run.state, DATA[2])
        assert caught.value.step == 2

    def test_is_skipped_or_ignored_by_choice(self) -> None:
        skipping = ft.custom(begin_at_zero, of_logarithm, nonfinite="skip")
        run = ft.fit(skipping, DATA, until="1 epoch")
        assert run.state.tree["total"] == DATA[1][0].log() + DATA[3][0].log()
        assert (run.state.counters.step, run.state.counters.skipped.item()) == (4, 1)
        ignoring = ft.custom(begin_at_zero, of_logarithm, nonfinite="ignore")
        run = ft.fit(ignoring, DATA, until="1 epoch")
        assert run.state.tree["total"].isnan()
        assert run.state.counters.skipped == 0

    def test_is_that_of_the_program_within_a_joint_one(self) -> None:
        def step(programs: Any, states: Any, batch: Tensor, rng: torch.Generator) -> Any:
            states["log"], found = programs["log"].train_step(states["log"], batch)
            return states, found

        raising = ft.custom(begin_at_zero, of_logarithm)
        made = ft.joint({"log": raising}, step)
        with pytest.raises(errors.NonFiniteError):
            made.train_step(made.init(), DATA[2])
        skipping = ft.custom(begin_at_zero, of_logarithm, nonfinite="skip")
        made = ft.joint({"log": skipping}, step)
        after, metrics = made.train_step(made.init(), DATA[2])
        assert after.log.counters.skipped == 1
        assert metrics["loss"].isnan()

    def test_is_treated_in_one_of_three_ways(self) -> None:
        with pytest.raises(errors.ConfigurationError, match=r"nonfinite: .*'drop'"):
            ft.custom(begin_at_zero, of_logarithm, nonfinite="drop")  # type: ignore[arg-type]
