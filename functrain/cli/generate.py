"""``functrain generate``: text from the state of a run, printed as it comes."""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs

from functrain import config
from functrain.checkpoint import load
from functrain.checkpoint.run_state import RunState
from functrain.cli import output
from functrain.cli.targets import Target
from functrain.errors import ConfigError, ConfigurationError, NoCheckpointError
from functrain.errors.validators import integer
from functrain.generation import until
from functrain.training.resume import TYPES
from functrain.view import plain_text
from functrain.view.run_checkpoints import CONFIG_NAME


@attrs.frozen(eq=False)
class Writer:
    """A run's function that goes on with a prompt, ready to be called.

    Attributes:
        function: (program, state, prompt, length, **options) -> text that begins with the prompt.
            One with a parameter ``stream`` is given ``stream=True``, and may return an iterator of
            pieces of what is added instead.
        program: of the run.
        state: of the checkpoint.
        name: its import path, for messages.
    """

    function: Callable[..., str | Iterator[str]]
    program: Any
    state: Any
    name: str

    def pieces(self, prompt: str, length: int, options: Mapping[str, Any]) -> Iterable[str]:
        """What the function adds to a prompt.

        Raises:
            ConfigurationError: it takes no such option.
        """
        kinds = inspect.signature(self.function).parameters
        any_name = any(parameter.kind is parameter.VAR_KEYWORD for parameter in kinds.values())
        for name in options:
            if name not in kinds and not any_name:
                flag = "--" + name.replace("_", "-")
                raise ConfigurationError(f"{flag}: {self.name} takes no option {name!r}")
        more = {"stream": True} if "stream" in kinds else {}
        made = self.function(self.program, self.state, prompt, length, **options, **more)
        return [made.removeprefix(prompt)] if isinstance(made, str) else made


@contextlib.contextmanager
def writer(target: Target) -> Iterator[Writer]:
    """The function that the configuration of a run names under ``generate``, for a checkpoint.

    Raises:
        NoCheckpointError: the checkpoint is not one of a run.
        ConfigError: the configuration names no such function, or cannot be read.
    """
    path = (target.run or target.path.parent) / CONFIG_NAME
    if not path.exists():
        raise ConfigError(
            f"generate: there is no {path}, which would name the model; it is there in the "
            "directory of a run of functrain train"
        )
    loaded = config.load(str(path))
    name = loaded.config.generate
    if name is None:
        raise ConfigError(
            f"generate: {path} names no function to generate with; give the import path of one "
            "(program, state, prompt, length, **options) -> text"
        )
    saved = load(target.path, types=TYPES)
    if not isinstance(saved, RunState):
        raise NoCheckpointError(2, f"{target.path} is not the checkpoint of a run")
    with config.importable(loaded):
        function = config.imported(name, "generate")
        yield Writer(function, config.build_program(loaded.config), saved.train, name)


def generate(
    target: Target,
    prompt: str,
    length: int,
    options: Mapping[str, Any],
    *,
    count: int = 1,
    stop: Sequence[str] = (),
    json: bool = False,
) -> None:
    """Print what a run makes of a prompt, piece by piece.

    Args:
        target: the checkpoint.
        prompt: how the text begins.
        length: how much to add.
        options: by name; ``None`` leaves the function's default.
        count: texts. The second has the seed after that of the first, and so on.
        stop: texts that end one; they are left out.
        json: print one document in the end instead.

    Raises:
        ConfigurationError: ``length`` or ``count`` is out of bounds.
        The errors of :func:`writer` and of the function.
    """
    integer(minimum=0).check("--length", length)
    integer(minimum=1).check("--count", count)
    given = {name: value for name, value in options.items() if value is not None}
    seeds = [given.get("seed", 0) + number for number in range(count)]
    texts = []
    with writer(target) as made:
        for seed in seeds:
            seeded = given if count == 1 else {**given, "seed": seed}
            added = until(made.pieces(prompt, length, seeded), stop)
            if json:
                texts.append({"seed": seed, "text": prompt + "".join(added)})
            else:
                _print(prompt, added, f"--- {seed}\n" if count > 1 else "")
    if json:
        about = {"path": target.path, "step": target.manifest.step, "prompt": prompt}
        output.print_json({**about, "length": length, "options": given, "texts": texts})


def _print(prompt: str, added: Iterable[str], heading: str) -> None:
    """Print the prompt once the first piece is there, so that an error is a line by itself."""
    begun = f"{heading}{prompt}"
    for piece in added:
        _write(begun + piece)
        begun = ""
    _write(begun + "\n")


def _write(text: str) -> None:
    if sys.stdout.isatty():  # a model may have learned what steers a terminal
        text = "".join(c if c in "\n\t" else plain_text.printable(c) for c in text)
    sys.stdout.write(text)
    sys.stdout.flush()
