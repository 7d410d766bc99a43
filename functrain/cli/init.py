"""``functrain init``: make a project that trains, and whose tests pass, as it is."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from functrain.cli import output
from functrain.errors import ConfigurationError

_TEMPLATES = Path(__file__).parents[1] / "examples" / "project"
# A template of a module has a name of its own, so that no tool takes it for a module of functrain.
_FILES = {
    "train.yaml": "the configuration",
    "model.py": "the model, its loss and its data",
    "test_model.py": "tests of all three",
}


def init(directory: Path, console: Console) -> None:
    """Write the files of a project."""
    for name in _FILES:
        if (directory / name).exists():
            raise ConfigurationError(
                f"{directory / name} exists, and init overwrites nothing: choose another folder"
            )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name in _FILES:
            template = _TEMPLATES / name.replace(".py", ".py-tpl")
            (directory / name).write_bytes(template.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"cannot make a project in {directory}: {error}") from error
    output.print_lines(
        console,
        *(f"{directory / name}: {about}" for name, about in _FILES.items()),
        "Begin with:",
        f"  cd {directory}",
        "  functrain train train.yaml",
        "  python -m pytest",
    )
