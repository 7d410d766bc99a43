"""``functrain generate``: text from the newest state of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from functrain import config
from functrain.cli.inspect import newest
from functrain.cli.run_directory import FILE_NAME
from functrain.errors import ConfigError


def generate(directory: Path, prompt: str, length: int, options: dict[str, Any]) -> str:
    """What the function that the run's configuration names under ``generate`` makes of a prompt.

    Args:
        directory: the run.
        prompt: how the text begins.
        length: how much to add.
        options: of sampling, by name; ``None`` leaves the function's default.

    Raises:
        NoCheckpointError: the run has no checkpoint.
        ConfigError: its configuration names no such function, or cannot be read.
    """
    state = newest(directory).train
    loaded = config.load(str(directory / FILE_NAME))
    if loaded.config.generate is None:
        raise ConfigError(
            f"generate: {directory / FILE_NAME} names no function to generate with; give the "
            "import path of one (program, state, prompt, length, **options) -> text"
        )
    with config.importable(loaded):
        function = config.imported(loaded.config.generate, "generate")
        program = config.build_program(loaded.config)
        given = {name: value for name, value in options.items() if value is not None}
        text: str = function(program, state, prompt, length, **given)
    return text
