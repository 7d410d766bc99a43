"""``instantiate`` of Hydra creates the same objects from the same configurations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import processes
import pytest
import torch
from torch import nn

import functrain as ft
from functrain import config
from functrain.data import as_source

hydra = pytest.importorskip("hydra")
pytestmark = pytest.mark.row(46)
GROUPS = sorted((Path(ft.__file__).parent / "examples" / "config").glob("*/*.yaml"))


def of_hydra(node: Any) -> Any:
    from hydra.utils import instantiate

    return instantiate(node, _convert_="all")


def test_shipped_optimizers_and_schedules() -> None:
    for name in ("digits", "chargpt"):
        plain = config.load(name).plain
        ours = config.instantiated(plain["optimizer"], "optimizer")
        assert of_hydra(plain["optimizer"]) == ours
        assert isinstance(ours, ft.optim.Groups | ft.optim.AdamW)
    plain = config.load("digits").plain
    schedule = of_hydra(plain["schedule"])
    assert schedule == ft.schedules.WarmupCosine(lr=0.004, warmup_proportion=0.1)


@pytest.mark.parametrize("path", GROUPS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_shipped_groups(path: Path) -> None:
    from omegaconf import OmegaConf

    plain = OmegaConf.to_container(OmegaConf.load(path))
    assert of_hydra(plain) == config.instantiated(plain, path.parent.name)


@pytest.mark.parametrize("name", ["digits", "chargpt"])
def test_shipped_models_and_data(name: str) -> None:
    plain = config.load(name, ["model.width=16"]).plain
    models: list[nn.Module] = []
    for make in (of_hydra, lambda node: config.instantiated(node, "model")):
        torch.manual_seed(0)
        models.append(make(plain["model"]))
    first, second = (model.state_dict() for model in models)
    assert type(models[0]) is type(models[1])
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    for key in ("data", "eval_data"):
        ours, theirs = config.instantiated(plain[key], key), of_hydra(plain[key])
        assert len(ours) == len(theirs)
        one, other = (next(iter(as_source(d).epoch(0, 0, 0, None))) for d in (ours, theirs))
        flat = torch.utils._pytree.tree_leaves
        assert all(torch.equal(a, b) for a, b in zip(flat(one), flat(other), strict=True))


def test_listeners_rules_and_partial_functions() -> None:
    node = {"_target_": "functrain.listeners.Console", "style": "minimal"}
    ours, theirs = config.instantiated(node, "listeners.0"), of_hydra(node)
    assert attrs.asdict(ours) == attrs.asdict(theirs)
    rule = {"_target_": "functrain.EarlyStop", "patience": 3}
    assert of_hydra(rule) == config.instantiated(rule, "early_stop") == ft.EarlyStop(patience=3)
    loss = {"_target_": "torch.nn.functional.cross_entropy", "_partial_": True, "reduction": "sum"}
    ours, theirs = config.instantiated(loss, "loss"), of_hydra(loss)
    assert (ours.func, ours.keywords) == (theirs.func, theirs.keywords)
    layers = {
        "_target_": "torch.nn.Sequential",
        "_args_": [{"_target_": "torch.nn.Flatten"}, {"_target_": "torch.nn.ReLU"}],
    }
    assert repr(of_hydra(layers)) == repr(config.instantiated(layers, "model"))


SCRIPT = """
import hydra
from hydra.utils import get_method, instantiate
from omegaconf import OmegaConf

import functrain as ft
from functrain import config


@hydra.main(version_base=None, config_path=".", config_name="run")
def main(cfg):
    optimizer = instantiate(cfg.optimizer, _convert_="all")
    program = ft.program(lambda: instantiate(cfg.model), get_method(cfg.loss), optimizer)
    run = ft.fit(program, instantiate(cfg.data), until=cfg.fit.until, seed=cfg.seed)

    # The same by functrain's own words for the whole configuration.
    typed = config.typed(OmegaConf.to_container(cfg, resolve=True))
    built = config.build(typed)
    again = ft.fit(built.program, built.data, until=typed.fit.until, seed=typed.seed)
    assert not ft.tree.diff(run.state, again.state)
    print(type(optimizer).__name__, run.state.counters.step)


main()
"""


@pytest.mark.slow
def test_a_whole_hydra_program_trains(folder: Path) -> None:
    text = (folder / "run.yaml").read_text().partition("optimizer:")[0]
    text = f"defaults:\n- optimizer: sgd\n- _self_\n\nseed: 3\n{text}fit: {{until: 3 steps}}\n"
    (folder / "run.yaml").write_text(text)
    (folder / "optimizer").mkdir()
    for name in ("SGD", "Lion"):
        (folder / "optimizer" / f"{name.lower()}.yaml").write_text(
            f"_target_: functrain.optim.{name}\nlr: 0.1\n"
        )
    (folder / "script.py").write_text(SCRIPT)
    for extra, said in (([], "SGD 3"), (["optimizer=lion", "fit.until=2 steps"], "Lion 2")):
        ended = processes.run("script.py", *extra, cwd=folder)
        assert ended.stdout.strip() == said, ended.stderr
