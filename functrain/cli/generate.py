"""``functrain generate``: stream text from a model of a run."""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from functrain import config
from functrain.checkpoint import load
from functrain.checkpoint.run_state import RunState
from functrain.cli import output
from functrain.cli.checkpoint_argument import ChosenCheckpoint
from functrain.errors import ConfigError, ConfigurationError, NoCheckpointError
from functrain.errors.validators import integer
from functrain.generation import until
from functrain.training.resume import TYPES
from functrain.view import plain_text
from functrain.view.run_checkpoints import CONFIG_NAME


@contextlib.contextmanager
def writer(target: ChosenCheckpoint) -> Iterator[Callable[..., Iterable[str]]]:
    """Load a checkpoint for the function ``generate`` in the configuration of its run.

    That is (program, state, prompt, length, **options) -> text that begins with the prompt. A
    parameter ``stream`` receives ``True``; then the function may return an iterator over pieces of
    the added text. The result of this takes (prompt, length, options) and returns the pieces.
    """
    path = (target.run or target.path.parent) / CONFIG_NAME
    if not path.exists():
        raise ConfigError(
            f"generate: there is no {path}, which defines the model; functrain train writes "
            "it to the directory of a run"
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
        program = config.build_program(loaded.config)
        kinds = inspect.signature(function).parameters
        any_name = any(parameter.kind is parameter.VAR_KEYWORD for parameter in kinds.values())
        more = {"stream": True} if "stream" in kinds else {}

        def added(prompt: str, length: int, options: Mapping[str, Any]) -> Iterable[str]:
            for option in options:
                if option not in kinds and not any_name:
                    flag = "--" + option.replace("_", "-")
                    raise ConfigurationError(f"{flag}: {name} takes no option {option!r}")
            made = function(program, saved.train, prompt, length, **options, **more)
            return [made.removeprefix(prompt)] if isinstance(made, str) else made

        yield added


def generate(
    target: ChosenCheckpoint,
    prompt: str,
    length: int,
    options: Mapping[str, Any],
    *,
    count: int = 1,
    stop: Sequence[str] = (),
    json: bool = False,
) -> None:
    """Print the continuation of a prompt, piece by piece.

    An option that is ``None`` has the default of the function. Several texts (``count``) have
    consecutive seeds. The texts of ``stop`` end the output and are no part of it.
    """
    integer(minimum=0).check("--length", length)
    integer(minimum=1).check("--count", count)
    given = {name: value for name, value in options.items() if value is not None}
    seeds = [given.get("seed", 0) + number for number in range(count)]
    texts = []
    with writer(target) as pieces:
        for seed in seeds:
            seeded = given if count == 1 else {**given, "seed": seed}
            added = until(pieces(prompt, length, seeded), stop)
            if json:
                texts.append({"seed": seed, "text": prompt + "".join(added)})
            else:
                _print(prompt, added, f"--- {seed}\n" if count > 1 else "")
    if json:
        about = {"path": target.path, "step": target.manifest.step, "prompt": prompt}
        output.print_json({**about, "length": length, "options": given, "texts": texts})


def _print(prompt: str, added: Iterable[str], heading: str) -> None:
    """Print the prompt with the first piece, so that an earlier error is a line by itself."""
    begun = f"{heading}{prompt}"
    for piece in added:
        _write(begun + piece)
        begun = ""
    _write(begun + "\n")


def _write(text: str) -> None:
    if sys.stdout.isatty():  # a model may generate control sequences for a terminal
        text = "".join(c if c in "\n\t" else plain_text.printable(c) for c in text)
    sys.stdout.write(text)
    sys.stdout.flush()
