"""``functrain generate`` as a user meets it: options, seeds, stop texts, errors of one line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.row(45)

MINE = '''
"""A run's own function: it shows what it was given."""


def whole(program, state, prompt, length, seed=0):
    return prompt + f"|{length}|{seed}|{state.counters.step}|"


def pieces(program, state, prompt, length, stream=False, **options):
    text = f"{length} {sorted(options.items())}"
    return iter(text) if stream else prompt + text


def bare(program, state, prompt, length):
    return prompt
'''


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A short run of chargpt with two checkpoints, beside a module of the user's."""
    from rich.console import Console

    from functrain.cli.train import train

    folder = tmp_path_factory.mktemp("generate")
    (folder / "mine.py").write_text(MINE)
    options = [
        f"directory={folder / 'run'}",
        "fit.until=4 steps",
        "fit.eval_every=2 steps",
        "fit.save_every=2 steps",
        "model.width=16",
        "model.layers=1",
        "eval_data.windows=8",
        "optimizer.lr.warmup_proportion=0.5",
        "report=null",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert train("chargpt", options, Console(quiet=True)) == 0
        yield folder / "run"
    sys.modules.pop("mine", None)


@pytest.fixture
def named(run: Path) -> Iterator[Callable[[str], Path]]:
    """Let the run's configuration name another function."""
    path = run / "config.yaml"
    before = path.read_text()

    def change(line: str) -> Path:
        path.write_text(
            before.replace("generate: functrain.examples.chargpt.sample", f"generate: {line}")
        )
        assert path.read_text() != before
        return run

    yield change
    path.write_text(before)


class TestTexts:
    def test_it_prints_the_prompt_and_length_characters(self, functrain: Any, run: Path) -> None:
        first, second = (functrain("generate", run, "The ", "--length", 30) for _ in range(2))
        assert first.code == 0, first.err
        assert first.out == second.out
        assert first.out.startswith("The ")
        assert len(first.out) == len("The ") + 30 + len("\n")

    def test_it_equals_the_python_function(self, functrain: Any, run: Path) -> None:
        import functrain as ft
        from functrain import config
        from functrain.examples import chargpt
        from functrain.training.resume import TYPES

        program = config.build_program(config.load(str(run / "config.yaml")).config)
        state: Any = ft.load(run / "step-00000002", types=TYPES)
        rules = {"temperature": 1.1, "top_k": 9, "top_p": 0.9, "min_p": 0.01}
        rules |= {"repetition_penalty": 1.2, "no_repeat_ngram_size": 3, "seed": 5}
        options: Any = {**rules, "weights": "params"}
        expected = chargpt.sample(program, state.train, "def ", 25, **options)
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        for place in ([run, "--step", 2], [f"{run}@2"], [run / "step-00000002"]):
            done = functrain("generate", place[0], "def ", "--length", 25, *flags, *place[1:])
            assert done.out == f"{expected}\n"

    def test_several_texts_are_those_of_seeds_in_order(self, functrain: Any, run: Path) -> None:
        short = ["--length", 20, "--json"]
        several = functrain("generate", run, "a", "--count", 3, "--seed", 4, *short).json["texts"]
        assert [text["seed"] for text in several] == [4, 5, 6]
        for text in several:
            alone = functrain("generate", run, "a", "--seed", text["seed"], *short).json["texts"]
            assert alone == [text]
        assert len({text["text"] for text in several}) == 3
        plain = functrain("generate", run, "a", "--count", 2, "--seed", 4, "--length", 20).out
        assert plain == f"--- 4\n{several[0]['text']}\n--- 5\n{several[1]['text']}\n"

    def test_stop_texts_end_it_and_are_excluded(self, functrain: Any, run: Path) -> None:
        whole = functrain("generate", run, "The ", "--length", 60).out.rstrip("\n")
        ending, other = whole[20:23], whole[30:32]
        done = functrain("generate", run, "The ", "--length", 60, "--stop", ending, "--stop", other)
        place = min(whole.index(ending, 4) + 3, whole.index(other, 4) + 2)
        cut = whole[:place].removesuffix(ending).removesuffix(other)
        assert done.out == f"{cut}\n"
        # The prompt itself may contain one.
        assert functrain("generate", run, "The ", "--length", 3, "--stop", "The").out[:4] == "The "

    def test_json_has_the_checkpoint_and_the_options(self, functrain: Any, run: Path) -> None:
        options = ["--length", 3, "--top-k", 5, "--monitor", "eval/ema/loss", "--json"]
        done = functrain("generate", f"{run}@best", "The ", *options)
        assert done.code == 0, done.err
        document = done.json
        assert document["prompt"] == "The "
        assert document["options"] == {"top_k": 5}
        assert document["step"] in (2, 4)
        assert document["path"].startswith(str(run))

    def test_pieces_are_printed_as_they_come(
        self, run: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from functrain.cli import generate
        from functrain.cli.checkpoint_argument import open_checkpoint

        written: list[str] = []
        monkeypatch.setattr(generate, "_write", written.append)
        generate.generate(open_checkpoint(run), "The ", 5, {})
        assert len(written) == 6
        assert written[0][:4] == "The "
        assert all(len(piece) == 1 for piece in written[1:])

    def test_control_characters_are_escaped_on_a_terminal(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        from functrain.cli.generate import _write

        _write("a\x1b[2J\n")
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        _write("a\x1b[2J\tä\n")
        assert capsys.readouterr().out == "a\x1b[2J\na\\x1b[2J\tä\n"


class TestOwnFunctions:
    def test_a_text_or_an_iterator_of_pieces(self, functrain: Any, named: Any) -> None:
        run = named("mine.whole")
        done = functrain("generate", run, "so", "--length", 7, "--seed", 3)
        assert done.out == "so|7|3|4|\n"
        done = functrain("generate", run, "so", "--stop", "|4", "--length", 7)
        assert done.out == "so|7|0\n"
        run = named("mine.pieces")
        done = functrain("generate", run, "so ", "--length", 7, "--min-p", 0.5, "--weights", "ema")
        assert done.out == "so 7 [('min_p', 0.5), ('weights', 'ema')]\n"

    def test_an_unknown_option_is_an_error(self, functrain: Any, named: Any) -> None:
        done = functrain("generate", named("mine.whole"), "a", "--top-k", 3)
        assert (done.code, done.out) == (2, "")
        assert done.err == "functrain: --top-k: mine.whole takes no option 'top_k'\n"
        done = functrain("generate", named("mine.bare"), "a", "--count", 2)
        assert done.err == "functrain: --seed: mine.bare takes no option 'seed'\n"
        assert functrain("generate", named("mine.bare"), "a").out == "a\n"

    @pytest.mark.parametrize(
        ("line", "message"),
        [("null", "names no function to generate with"), ("mine.wohle", "did you mean 'whole'?")],
    )
    def test_a_run_without_one(self, functrain: Any, named: Any, line: str, message: str) -> None:
        assert functrain("generate", named(line), "a").refuses(message)


class TestErrors:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([""], "the prompt is empty"),
            (["Thä"], "character 3 of the prompt is 'ä' (U+00E4), which the model does not know"),
            (["a", "--top-p", 2], "top_p: expected a number from 0 to 1 or None, got 2.0"),
            (["a", "--temperature", -1], "temperature: expected a number >= 0"),
            (["a", "--weights", "best"], 'weights: expected "params" or "ema"'),
            (["a", "--step", 3], "has no checkpoint of step 3; the nearest is of step 2"),
            (["a", "--stop", ""], "a stop text is empty"),
            (["a", "--length", -1], "--length: expected an integer >= 0, got -1"),
            (["a", "--count", 0], "--count: expected an integer >= 1, got 0"),
        ],
    )
    def test_is_one_line_and_nothing_else(
        self, functrain: Any, run: Path, arguments: list[Any], message: str
    ) -> None:
        assert functrain("generate", run, *arguments).refuses(message)

    def test_no_run_and_no_configuration(self, functrain: Any, run: Path, tmp_path: Path) -> None:
        assert functrain("generate", tmp_path, "a").refuses("there is no run")
        alone = tmp_path / "step-00000004"
        alone.symlink_to(run / "step-00000004")
        done = functrain("generate", alone, "a")
        assert done.refuses(f"there is no {tmp_path / 'config.yaml'}")
