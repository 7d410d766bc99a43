"""Several programs as one: equal to loops by hand, held to the laws, and refused by name."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import own_programs as own
import pytest
import torch
from torch import Tensor, nn

import functrain as ft
from functrain import errors, testing, tree
from functrain.own_steps.joint import Joint

MADE = {
    "gan": own.gan,
    "dqn": own.dqn,
    "moco": own.moco,
    "mean_teacher": own.mean_teacher,
}
BY_HAND = {
    "gan": own.gan_by_hand,
    "dqn": own.dqn_by_hand,
    "moco": own.moco_by_hand,
    "mean_teacher": own.mean_teacher_by_hand,
}
each = pytest.mark.parametrize("name", MADE)


def run_of(name: str) -> dict[str, Any]:
    """Return the arguments of ``fit``; the evaluation of the GAN draws random numbers."""
    program, data = MADE[name](), own.data()
    more = {"eval_data": data, "eval_every": "5 steps"} if program.evaluate else {}
    return {"program": program, "data": data, "save_every": "4 steps", **more}


def make_gan() -> dict[str, Any]:
    return run_of("gan")


def make_dqn() -> dict[str, Any]:
    return run_of("dqn")


def make_moco() -> dict[str, Any]:
    return run_of("moco")


def make_mean_teacher() -> dict[str, Any]:
    return run_of("mean_teacher")


def make_all_at_once() -> dict[str, Any]:
    """Return a run of all four, so that one kill shows them all."""

    def step(programs: Any, states: Any, batch: Tensor, rng: torch.Generator) -> Any:
        stepped = {n: one.train_step(states[n], batch) for n, one in programs.items()}
        metrics = {f"{n}/loss": found["loss"] for n, (_, found) in stepped.items()}
        return {n: state for n, (state, _) in stepped.items()}, metrics

    program = ft.joint({name: make() for name, make in MADE.items()}, step=step)
    return {"program": program, "data": own.data(), "save_every": "4 steps"}


MAKE: dict[str, Callable[[], dict[str, Any]]] = {
    "gan": make_gan,
    "dqn": make_dqn,
    "moco": make_moco,
    "mean_teacher": make_mean_teacher,
}


def weights(state: Any) -> dict[str, dict[str, Tensor]]:
    """Return the tensors of a joint state by the names of the loops by hand."""
    found = {}
    for name, one in state.states.items():
        if hasattr(one, "tree"):
            found[name] = {"tree": one.tree}
            continue
        found[name] = {**one.params, **one.buffers}
        if one.ema is not None:
            teacher = "momentum" if name == "encoder" else "teacher"
            found[teacher] = {**one.ema["params"], **one.buffers}
    return found


@each
def test_fifty_steps_are_those_of_a_loop_by_hand(name: str) -> None:
    program = MADE[name]()
    run = ft.fit(program, own.data(), until="50 steps", progress=False)
    found, by_hand = weights(run.state), BY_HAND[name](50)
    assert found.keys() == by_hand.keys()
    for part, tensors in by_hand.items():
        assert found[part].keys() == tensors.keys()
        for path, tensor in tensors.items():
            assert tree.equal(found[part][path], tensor.detach()), (part, path)
    assert run.state.counters.step == 50


@each
def test_is_pure(name: str) -> None:
    program = MADE[name]()
    state = program.init()
    for _ in range(3):
        testing.check_pure(program, state, own.X[:8])
        state, _ = program.train_step(state, own.X[:8])


@each
def test_resumes_with_the_same_bytes(name: str) -> None:
    testing.check_resumes(MAKE[name], steps=19, cuts=[3, 9, 14])


@pytest.mark.long
def test_all_resume_in_fresh_processes_that_were_killed() -> None:
    testing.check_resumes(make_all_at_once, steps=12, cuts=[6], kill=True)


@pytest.mark.long
@each
def test_each_resumes_in_fresh_processes_that_were_killed(name: str) -> None:
    testing.check_resumes(MAKE[name], steps=12, cuts=[3, 7], kill=True)


@each
def test_depends_on_nothing_else(name: str) -> None:
    testing.check_complete((MADE[name](), own.data()))


@each
def test_checked_and_donated_programs_have_the_same_bytes(name: str) -> None:
    program = MADE[name]()
    plain = state = program.init()
    checked = donated = ft.copy(state)
    for batch in own.X.split(16):
        plain, _ = program.train_step(plain, batch)
        checked, _ = ft.checked(program).train_step(checked, batch)
        donated, _ = ft.donated(program).train_step(donated, batch)
    assert tree.equal(plain, checked)
    assert tree.equal(plain, donated)


def test_a_donated_state_is_consumed_and_named_where_it_is_read_later() -> None:
    program = ft.donated(own.mean_teacher())
    state = program.init()
    later, _ = program.train_step(state, own.X[:8])
    with pytest.raises(errors.DonatedStateError, match=r"state\.student"):
        state.student  # noqa: B018
    assert later.student.counters.step == 1

    def reading(programs: Any, states: Any, batch: Tensor, rng: torch.Generator) -> Any:
        new, metrics = own.teach(programs, states, batch, rng)
        return new, {**metrics, "norm": states["student"].params["0.weight"].norm()}

    late = ft.donated(attrs.evolve(own.mean_teacher(), step=reading))
    with pytest.raises(errors.DonatedStateError) as caught:
        late.train_step(late.init(), own.X[:8])
    assert "'student'" in caught.value.__notes__[0]


def test_a_donated_step_writes_to_the_memory_of_the_states_in_it() -> None:
    def step(programs: Any, states: Any, batch: Tensor, rng: torch.Generator) -> Any:
        new, metrics = programs["one"].train_step(states["one"], batch)
        return {"one": new}, metrics

    def loss(model: Any, x: Tensor) -> Tensor:
        places.append(model.weight.data_ptr())
        return model(x).mean()

    places: list[int] = []
    inner = ft.program(nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.1))
    program = ft.donated(ft.joint({"one": inner}, step=step))
    state = program.init()
    for _ in range(6):
        state, _ = program.train_step(state, torch.ones(4, 2))
    assert len(set(places[3:])) == 1  # the first steps bind copies


def test_paths_and_counters_and_a_directory(tmp_path: Path) -> None:
    run = ft.fit(**run_of("gan"), until="2 epochs", directory=tmp_path, progress=False)
    state = run.state
    paths = [tree.path_string(path) for path in tree.flatten(state)]
    assert paths[0] == "generator.params.0.weight"
    assert "discriminator.counters.step" in paths
    assert (state.counters.epoch, state.counters.step, state.counters.samples) == (2, 16, 128)
    assert len(run.history["discriminator/loss"]) == 16
    ft.save(tmp_path / "state", state)
    assert tree.equal(ft.load(tmp_path / "state"), state)
    assert tree.equal(ft.load(tmp_path / "state", like=state), state)
    best = ft.Checkpoints(tmp_path, monitor="eval/distance").restore("latest")[0]
    assert tree.equal(best.train, state)


def test_equal_models_draw_different_weights_from_one_seed() -> None:
    program = ft.program(lambda: nn.Linear(2, 1), own.consistency, ft.optim.SGD(lr=0.1))
    both = ft.joint({"one": program, "other": program}, step=own.q_step)
    state = both.init(seed=3)
    assert not tree.equal(state.one.params, state.other.params)
    assert tree.equal(both.init(seed=3), state)
    assert tree.equal(ft.fork(both.init(seed=4), seed=3).one.rng, state.one.rng)


def test_pretrained_values_of_one_program() -> None:
    program = own.gan()
    values = dict(own.net(2, 1, 9).state_dict())
    state = program.init(params={"discriminator": values})
    assert tree.equal(dict(state.discriminator.params), values)
    with pytest.raises(errors.ConfigurationError, match="did you mean 'discriminator'"):
        program.init(params={"discriminater": values})
    with pytest.raises(errors.ConfigurationError, match=r"got a str: .*program=name"):
        program.init(params="runs/gan")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("generator", "use program.programs['generator']"),
        ("module", "use that of one of its programs, program.programs['generator'].module"),
        ("train_stp", "did you mean 'train_step'"),
    ],
)
def test_an_attribute_of_one_of_its_programs_is_explained(name: str, words: str) -> None:
    with pytest.raises(AttributeError) as caught:
        getattr(own.gan(), name)
    assert words in str(caught.value)
    assert copy.copy(own.gan()).programs


def test_schedules_take_their_length_from_the_run() -> None:
    def made(**options: Any) -> Joint:
        lr = ft.schedules.Cosine(lr=1e-2, **options)
        student = ft.program(own.net(2, 1, 5), own.consistency, ft.optim.SGD(lr=lr), ema=0.9)
        return ft.joint({"student": student}, step=own.teach)

    run = ft.fit(made(), own.data(), until="2 epochs", progress=False)
    rates = run.history["lr"]
    alone = ft.schedules.Cosine(lr=1e-2, steps=16)
    assert [float(rate) for rate in rates] == [alone(step) for step in range(16)]

    def twice(programs: Any, states: Any, batch: Tensor, rng: torch.Generator) -> Any:
        states, _ = own.teach(programs, states, batch, rng)
        return own.teach(programs, states, batch, rng)

    uncounted = ft.joint(made().programs, step=twice)
    with pytest.raises(errors.StepResultError, match="2 updates of 'student'"):
        ft.fit(uncounted, own.data(), until="2 epochs", progress=False)
    counted = ft.joint(made(steps=32).programs, step=twice)
    ft.fit(counted, own.data(), until="2 epochs", progress=False)
    # Beyond the end of a schedule of its own nothing would be trained.
    with pytest.raises(errors.ScheduleEndedError):
        ft.fit(counted, own.data(), until="3 epochs", progress=False)


def test_an_observing_schedule_sees_evaluations() -> None:
    lr = ft.schedules.Plateau(lr=1e-2, patience=0, mode="min")
    student = ft.program(own.net(2, 1, 5), own.consistency, ft.optim.SGD(lr=lr), ema=0.9)

    def growing(programs: Any, states: Any, batch: Tensor, rng: torch.Generator) -> Any:
        return {"loss": states["student"].counters.step}

    program = ft.joint({"student": student}, step=own.teach, evaluate=growing)
    data = own.data()
    run = ft.fit(program, data, until="3 epochs", eval_data=data, progress=False)
    assert float(run.history["lr"][-1]) < 1e-2


def with_generator(states: Any, **fields: Any) -> Any:
    """Return the states with other fields in that of the generator, and no metrics."""
    return {**states, "generator": attrs.evolve(states["generator"], **fields)}, {}


def at(states: Any, **counts: int) -> Any:
    return with_generator(states, counters=attrs.evolve(states["generator"].counters, **counts))


def in_float64(states: Any) -> Any:
    params = {path: one.double() for path, one in states["generator"].params.items()}
    return with_generator(states, params=params)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda s: ({"generator": s["generator"]}, {}), "no state of 'discriminator'"),
        (
            lambda s: ({**s, "generatr": s["generator"]}, {}),
            "'generatr' (did you mean 'generator'?)",
        ),
        (
            lambda s: (dict.fromkeys(s, s["generator"]), {}),
            "state of 'discriminator' with the seed",
        ),
        (lambda s: at(s, step=-1), "a state of 'generator' at step -1"),
        (
            lambda s: at(s, step=50, samples=8),
            "a state of 'generator' at step 50, after 8 samples, and was given one at step",
        ),
        (lambda s: with_generator(s, optimizer={}), "missing 'optimizer.exp_avg.0.weight'"),
        (
            lambda s: ({**s, "generator": ft.fork(s["generator"], seed=77)}, {}),
            "state of 'generator' with the seed 77",
        ),
        (in_float64, "'0.weight' has the dtype torch.float64"),
        (
            lambda s: ({**s, "generator": s["generator"].params}, {}),
            "'generator' is a FrozenDict, expected a TrainState",
        ),
        (lambda s: s, "step must return (states, metrics)"),
        (lambda s: (s, {"loss": torch.zeros(8)}), "'loss' is a tensor of shape [8]"),
        (lambda s: (s, {"step": 3}), "'step': the log has its own"),
    ],
)
def test_a_wrong_result_is_refused_by_name(wrong: Any, words: str) -> None:
    def step(programs: Any, states: Any, batch: Tensor, rng: torch.Generator) -> Any:
        return wrong(states)

    program = attrs.evolve(own.gan(), step=step)
    with pytest.raises(errors.StepResultError) as caught:
        program.train_step(program.init(), own.X[:8])
    assert words in str(caught.value)


def test_a_step_that_writes_to_a_state_is_refused() -> None:
    def writing(programs: Any, states: Any, batch: Tensor, rng: torch.Generator) -> Any:
        states["generator"].params["0.weight"].mul_(2)
        return states, {}

    program = attrs.evolve(own.gan(), step=writing)
    with pytest.raises(errors.ImpurityError, match=r"state\.generator\.params\.0\.weight was"):
        program.train_step(program.init(), own.X[:8])


def test_an_optimizer_that_begins_with_its_first_update_is_no_other_one() -> None:
    adam = ft.optim.from_torch(torch.optim.Adam, lr=0.1)
    student = ft.program(own.net(2, 1, 5), own.consistency, adam, ema=0.9)
    program = ft.joint({"student": student}, step=own.teach)
    run = ft.fit(program, own.data(), until="3 steps", progress=False)
    assert run.state.student.counters.step == 3


@pytest.mark.parametrize("transform", [ft.donated, lambda program: program])
def test_a_step_that_writes_to_a_list_is_refused(transform: Any) -> None:
    def writing(programs: Any, states: Any, batch: Tensor, rng: torch.Generator) -> Any:
        net, metrics = programs["net"].train_step(states["net"], (batch, batch[:, :1]))
        states["log"].tree["seen"].append(metrics["loss"])
        return {**states, "net": net}, {}

    net = ft.program(own.net(2, 1, 5), own.consistency, ft.optim.SGD(lr=0.05))
    log = ft.custom(lambda seed: {"seen": [torch.zeros(())]}, own.shifted)
    program = transform(ft.joint({"net": net, "log": log}, step=writing))
    with pytest.raises(errors.ImpurityError, match=r"state\.log\.tree\.seen was changed"):
        program.train_step(program.init(), own.X[:8])


def test_an_impure_step_is_found() -> None:
    seen: list[int] = []

    def counting(programs: Any, states: Any, batch: Tensor, rng: torch.Generator) -> Any:
        seen.append(1)
        return states, {"calls": len(seen)}

    program = attrs.evolve(own.gan(), step=counting)
    with pytest.raises(errors.ImpurityError, match="calls"):
        testing.check_pure(program, program.init(), own.X[:8])
    with pytest.raises(errors.ImpurityError, match="calls"):
        ft.checked(program).train_step(program.init(), own.X[:8])


@pytest.mark.parametrize(("programs", "got"), [([own.dqn()], "a list"), ({}, "{}")])
def test_programs_have_names(programs: Any, got: str) -> None:
    with pytest.raises(errors.ConfigurationError, match=f"programs by name.* got {got}$"):
        ft.joint(programs, step=own.q_step)


@pytest.mark.parametrize("name", ["a.b", "class", "_own", "rng", "ema", 3])
def test_names_are_attributes(name: Any) -> None:
    with pytest.raises(errors.ConfigurationError, match="expected names"):
        ft.joint({name: own.dqn().programs["online"]}, step=own.q_step)


def test_functions_are_asked_for_their_arguments() -> None:
    programs = own.dqn().programs
    with pytest.raises(errors.ConfigurationError, match="programs, states, batch, rng"):
        ft.joint(programs, step=lambda states, batch: (states, {}))  # type: ignore[arg-type,misc]
    with pytest.raises(errors.UnsupportedError, match="expected a Program, got a Linear"):
        ft.joint({"one": nn.Linear(2, 1)}, step=own.q_step)  # type: ignore[dict-item]
    program = own.dqn()
    with pytest.raises(errors.ConfigurationError, match="no evaluation"):
        ft.evaluate(program, program.init(), own.data())


def test_transformations_of_one_module_say_where_they_belong() -> None:
    for transform in (ft.compiled, ft.sharded, ft.sharpness_aware):
        with pytest.raises(errors.UnsupportedError, match="'generator'"):
            transform(own.gan())


def test_bisect_names_the_first_difference() -> None:
    def first() -> dict[str, Any]:
        return {**make_gan(), "until": "6 steps"}

    def second() -> dict[str, Any]:
        def step(programs: Any, states: Any, batch: Tensor, rng: torch.Generator) -> Any:
            late = states["discriminator"].counters.step >= 3
            return own.alternate(programs, states, batch * (1 + late), rng)

        return {**first(), "program": attrs.evolve(own.gan(), step=step)}

    found = ft.bisect(first, second)
    assert found is not None
    assert found.step == 4


def test_joint_programs_nest() -> None:
    def step(programs: Any, states: Any, batch: Tensor, rng: torch.Generator) -> Any:
        state, metrics = programs["inner"].train_step(states["inner"], batch)
        return {"inner": state}, metrics

    program = ft.joint({"inner": own.gan()}, step=step)
    run = ft.fit(program, own.data(), until="1 epoch", progress=False)
    assert run.state.inner.generator.counters.step == 8
    assert list(program.leaves()) == ["inner.generator.", "inner.discriminator."]
