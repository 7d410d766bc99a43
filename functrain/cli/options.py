"""Arguments and options that several commands share, their completion, and examples for ``--help``.

Nothing here imports torch, so that ``--help`` and completion answer at once.
"""

from __future__ import annotations

from collections.abc import Callable
from glob import glob
from pathlib import Path
from typing import Annotated

import typer

from functrain.errors.paths import expanded

_EXAMPLES = Path(__file__).parents[1] / "examples"


def words(*choices: str) -> Callable[[str], list[str]]:
    """Return a function that completes one of these words.

    Example:
        >>> words("min", "max")("mi")
        ['min']
    """

    def complete(incomplete: str) -> list[str]:
        return [word for word in choices if word.startswith(incomplete)]

    return complete


def sources(incomplete: str) -> list[str]:
    """Complete the name of an example or the path of a YAML file.

    Example:
        >>> sources("dig")
        ['digits', 'digits_search']
    """
    names = sorted(path.stem for path in _EXAMPLES.glob("*.yaml"))
    found = sorted(f"{path}/" if Path(path).is_dir() else path for path in glob(f"{incomplete}*"))
    return [
        *words(*names)(incomplete),
        *(path for path in found if path.endswith(("/", ".yaml", ".yml"))),
    ]


def examples(*lines: str) -> str:
    """Return the end of the help of a command: its examples, a paragraph each.

    Example:
        >>> examples("functrain ls runs").split()
        ['Examples:', '$', 'functrain', 'ls', 'runs']
    """
    return "\n\n".join(["Examples:", *(f"$ {line}" for line in lines)])


def path(text: str) -> Path:
    """Return a path that was given on the command line; the help calls its type by this name."""
    return expanded(text)


Source = Annotated[
    str, typer.Argument(help="digits, chargpt, or a YAML file", autocompletion=sources)
]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="key=value, +key=value, ~key, group=name ...")
]
Directory = Annotated[Path, typer.Argument(help="a run directory", parser=path)]
Place = Annotated[
    Path, typer.Argument(help="a run, RUN@STEP, RUN@best, or a checkpoint", parser=path)
]
Step = Annotated[int | None, typer.Option(help="the checkpoint of this step")]
Best = Annotated[bool, typer.Option("--best", help="the best checkpoint")]
Monitor = Annotated[str | None, typer.Option(help="the metric that determines the best")]
Mode = Annotated[
    str | None,
    typer.Option(help="whether its min or max is best", autocompletion=words("min", "max")),
]
AsJson = Annotated[bool, typer.Option("--json", help="print one JSON document instead")]
