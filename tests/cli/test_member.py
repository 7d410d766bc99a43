"""``functrain member``: a member of a population as a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from populations import batch, program
from safetensors.torch import load_file

import functrain as ft

DATA = [batch(number) for number in range(2)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ft.Run]:
    pop = ft.population(program(), {"lr": [0.001, 0.1, 0.01]})
    where = tmp_path_factory.mktemp("run") / "run"
    return pop, ft.fit(pop, DATA, until="2 epochs", eval_data=DATA, directory=where)


@pytest.mark.parametrize("index", [0, None])
def test_a_member_is_written_as_a_checkpoint(
    functrain: Callable[..., Any], tmp_path: Path, trained: Any, index: int | None
) -> None:
    pop, run = trained
    chosen = run.best["member"] if index is None else index
    option = () if index is None else ("--index", index)
    ended = functrain("member", run.directory, tmp_path / "one", *option)
    assert ended.code == 0, ended.out
    why = (
        "" if index == 0 else f", the best by the run's monitor ({run.best['value'][chosen]:.6g}),"
    )
    said = " ".join(ended.out.split())
    assert f"member {chosen} of 3 (lr={pop.values['lr'][chosen]}){why} written to" in said
    own = pop.programs[chosen]
    one = ft.load(tmp_path / "one", like=own.init())
    assert ft.tree.equal(one, pop.member(run.state, chosen))
    goes_on = ft.fit(own, DATA, until="3 epochs", state=one)
    assert goes_on.new_steps == 2
    assert functrain("export", tmp_path / "one", tmp_path / "w.safetensors").code == 0
    weights = load_file(tmp_path / "w.safetensors")
    assert ft.tree.equal(weights["0.weight"], one.params["0.weight"])


@pytest.mark.parametrize("varied", [{}, {"momentum": [0.7, 0.9]}], ids=["seeds", "momentum"])
def test_the_weights_of_a_member_are_those_that_are_evaluated(
    functrain: Callable[..., Any], tmp_path: Path, varied: dict[str, Any]
) -> None:
    pop = ft.population(program(ft.optim.ScheduleFreeSGD(lr=0.1)), varied or None, seeds=[0, 1])
    run = ft.fit(pop, DATA, until="2 epochs", directory=tmp_path / "run")
    assert functrain("member", run.directory, tmp_path / "one", "--index", 1).code == 0
    ended = functrain("export", tmp_path / "one", tmp_path / "w.safetensors")
    if varied:  # which share of the average is evaluated, only the program can tell
        assert ended.code == 2
        assert "what='trained'" in " ".join(ended.err.split())
        return
    with pop.programs[1].evaluating(pop.member(run.state, 1)) as model:
        assert ft.tree.equal(load_file(tmp_path / "w.safetensors"), dict(model.state_dict()))


def test_wrong_members_are_refused(
    functrain: Callable[..., Any], tmp_path: Path, trained: Any
) -> None:
    _, run = trained
    ended = functrain("member", run.directory, tmp_path / "one", "--index", 3)
    assert ended.code != 0
    assert "expected the index of a member, 0 to 2, got 3" in " ".join(ended.err.split())
    ended = functrain("export", run.directory, tmp_path / "w.safetensors")
    assert "population of 3 members" in " ".join(ended.err.split())
    alone = ft.fit(program(), DATA, until="1 step", directory=tmp_path / "alone")
    ended = functrain("member", alone.directory, tmp_path / "two")
    assert "is no checkpoint of a population" in " ".join(ended.err.split())
