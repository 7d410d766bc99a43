"""Steps of one's own from YAML: several programs, and functions over a tree."""

from __future__ import annotations

import textwrap
from pathlib import Path

import own_programs as own
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

import functrain as ft
from functrain import config, errors, tree
from functrain.cli.entry_point import app

GAN = """
    name: gan
    programs:
      generator:
        model: {_target_: own_programs.net, inputs: 4, outputs: 2, seed: 1, norm: true}
        loss: own_programs.fooled
        optimizer: {_target_: functrain.optim.Adam, lr: 0.01}
        program: {ema: 0.9}
      discriminator:
        model: {_target_: own_programs.net, inputs: 2, outputs: 1, seed: 2}
        loss: own_programs.judged
        optimizer: {_target_: functrain.optim.Adam, lr: 0.01}
    step: own_programs.alternate
    evaluate: own_programs.distance
    data: {_target_: own_programs.data}
    eval_data: {_target_: own_programs.data}
    fit: {until: 2 epochs, save_every: 3 steps}
    checkpoints: {monitor: eval/distance, mode: min}
"""
MOCO = """
    name: moco
    programs:
      encoder:
        model: {_target_: own_programs.net, inputs: 2, outputs: 4, seed: 4}
        loss: own_programs.contrast
        optimizer: {_target_: functrain.optim.SGD, lr: 0.1, momentum: 0.9}
        program: {ema: 0.99, clip_norm: 1.0}
      queue: {init: own_programs.no_keys, step: own_programs.enqueue}
    step: own_programs.moco_step
    data: {_target_: own_programs.data}
    fit: {until: 2 epochs}
"""
QUEUE = """
    name: queue
    init: own_programs.no_keys
    step: own_programs.shifted
    data: {_target_: own_programs.data}
    fit: {until: 5 steps}
"""


def write(folder: Path, text: str) -> str:
    path = folder / "run.yaml"
    path.write_text(textwrap.dedent(text))
    return str(path)


def train(folder: Path, *more: str) -> None:
    arguments = ["train", str(folder / "run.yaml"), f"directory={folder / 'run'}", *more]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output


def test_a_gan_is_trained_and_resumed_by_the_command_line(tmp_path: Path) -> None:
    write(tmp_path, GAN)
    train(tmp_path, "fit.until=7 steps")
    train(tmp_path)
    loaded = config.load(str(tmp_path / "run.yaml"))
    built = config.build(loaded.config)
    straight = ft.fit(
        built.program, built.data, until="2 epochs", eval_data=built.eval_data, progress=False
    )
    resumed = ft.Checkpoints(tmp_path / "run").restore("latest")[0].train
    assert ft.tree.equal(resumed, straight.state)
    assert straight.state.generator.ema is not None
    best = ft.Checkpoints(tmp_path / "run", monitor="eval/distance", mode="min")
    assert best.restore("best")[0].train.counters.step in (8, 16)
    out = tmp_path / "generator.safetensors"
    arguments = ["export", str(tmp_path / "run"), str(out), "--what", "ema", "--program"]
    result = CliRunner().invoke(app, [*arguments, "generator"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    exported = load_file(out)
    assert set(exported) == {*straight.state.generator.params, *straight.state.generator.buffers}
    assert ft.tree.equal(exported["0.bias"], straight.state.generator.ema["params"]["0.bias"])


def test_each_program_has_initial_weights_of_its_own(tmp_path: Path) -> None:
    torch.manual_seed(5)
    trunk = {"body.weight": torch.randn(16, 4), "body.bias": torch.randn(16), "no": torch.ones(1)}
    torch.save(trunk, tmp_path / "trunk.pt")
    options = f"{{path: {tmp_path / 'trunk.pt'}, only: 0.*, rename: {{body.: '0.'}}}}"
    text = GAN.replace("program: {ema", f"init_from: {options}\n        program: {{ema", 1)
    built = config.build(config.load(write(tmp_path, text)).config)
    state = built.initial()
    plain = built.program.init(0)
    assert tree.equal(state.generator.params["0.weight"], trunk["body.weight"])
    assert tree.equal(state.generator.params["0.bias"], trunk["body.bias"])
    fresh = plain.generator.params.keys() - {"0.weight", "0.bias"}
    assert all(
        tree.equal(state.generator.params[path], plain.generator.params[path]) for path in fresh
    )
    assert tree.equal(state.discriminator, plain.discriminator)
    python = built.program.init(
        0,
        params={"generator": str(tmp_path / "trunk.pt")},
        only={"generator": "0.*"},
        rename={"generator": {"body.": "0."}},
    )
    assert tree.equal(state, python)
    train(tmp_path, "fit.until=1 step", "programs.generator.optimizer.lr=0.0")
    trained = ft.Checkpoints(tmp_path / "run").restore("latest")[0].train
    assert tree.equal(trained.generator.params["0.weight"], trunk["body.weight"])
    options = f"{{path: {tmp_path / 'run'}, program: generator, weights: ema}}"
    text = GAN.replace("program: {ema", f"init_from: {options}\n        program: {{ema", 1)
    built = config.build(config.load(write(tmp_path, text)).config)
    average = trained.generator.ema["params"]
    assert tree.equal({**built.initial().generator.params}, {**average})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("init_from: /nowhere", "programs.discriminator.init_from: there is no checkpoint"),
        ("init_from: {path: WEIGHTS, only: x*}", "programs.discriminator.init_from: only: 'x*'"),
        ("init_from: WEIGHTS", "programs.discriminator.init_from: the given params do not fit"),
        ("init_from: {pat: WEIGHTS}", "programs.discriminator.init_from"),
    ],
)
def test_initial_weights_that_do_not_fit_name_their_key(
    tmp_path: Path, given: str, words: str
) -> None:
    torch.save({"weight": torch.ones(2)}, tmp_path / "w.pt")
    given = given.replace("WEIGHTS", str(tmp_path / "w.pt"))
    text = GAN.replace("loss: own_programs.judged", f"loss: own_programs.judged\n        {given}")
    with pytest.raises(errors.ConfigError) as caught:
        config.build(config.load(write(tmp_path, text)).config).initial()
    assert words in str(caught.value)


def test_joint_init_names_programs() -> None:
    program = own.gan()
    for what in ("params", "only", "rename"):
        with pytest.raises(errors.ConfigurationError, match=f"{what}: expected names of programs"):
            program.init(**{what: {"generater": {}}})


def test_a_step_over_a_tree(tmp_path: Path) -> None:
    write(tmp_path, QUEUE)
    train(tmp_path)
    assert ft.Checkpoints(tmp_path / "run").restore("latest")[0].train.counters.step == 5


def test_a_tree_among_several_programs(tmp_path: Path) -> None:
    write(tmp_path, MOCO)
    train(tmp_path, "fit.until=7 steps")
    train(tmp_path)
    straight = ft.fit(own.moco(), own.data(), until="2 epochs", progress=False).state
    found = ft.Checkpoints(tmp_path / "run").restore("latest")[0].train
    assert ft.tree.equal(found.queue.tree, straight.queue.tree)
    assert ft.tree.equal(found.encoder.params, straight.encoder.params)


MISTAKES = [
    (MOCO, "init: own_programs.no_keys, ", "", "programs.queue.init: missing"),
    (MOCO, ", step: own_programs.enqueue", "", "programs.queue.step: missing"),
    (MOCO, "queue: {", "queue: {loss: own_programs.judged, ", "queue.loss: has no effect with"),
    (MOCO, "queue: {", "queue: {program: {ema: 0.9}, ", "queue.program: has no effect with"),
    (
        MOCO,
        "own_programs.enqueue",
        "own_programs.no_keys",
        "programs.queue.step: train_step: expec",
    ),
    (MOCO, "loss: own_programs.contrast", "schedule: null", "programs.encoder.loss: missing"),
    (GAN, "step: own_programs.alternate", "loss: own_programs.fooled", "step: missing"),
    (GAN, "lr: 0.01}\n        program", "lr: x}\n        program", "programs.generator.optimizer"),
    (GAN, "fit:", "model: {_target_: torch.nn.ReLU}\n    fit:", "model: has no effect with"),
    (GAN, "fit:", "program: {clip_norm: 1.0}\n    fit:", "programs.NAME.program"),
    (GAN, "discriminator:\n", "rng:\n", "programs: joint: expected names"),
    (GAN, "loss: own_programs.judged", "los: a", "programs.discriminator.los: unknown key"),
    (GAN, "own_programs.alternate", "own_programs.enqueue", "programs: step: expected"),
    (GAN, "fit:", "init: own_programs.no_keys\n    fit:", "either programs or init"),
]


@pytest.mark.parametrize(("text", "old", "new", "words"), MISTAKES)
def test_mistakes_name_their_key(tmp_path: Path, text: str, old: str, new: str, words: str) -> None:
    assert old in text
    path = write(tmp_path, text.replace(old, new, 1))
    with pytest.raises(errors.ConfigError) as caught:
        config.build(config.load(path).config)
    assert words in str(caught.value)


def test_a_plain_run_still_needs_its_model(tmp_path: Path) -> None:
    path = write(tmp_path, "data: {_target_: own_programs.data}\nfit: {until: 1 step}\n")
    with pytest.raises(errors.ConfigError, match="model: missing"):
        config.load(path)
