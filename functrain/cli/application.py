"""The commands, with the examples of their help."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from importlib.metadata import version as version_of
from typing import Annotated

import typer

from functrain import __version__
from functrain.cli.config import app as configuration
from functrain.cli.options import examples
from functrain.cli.project_commands import compile, generate, init, search, train
from functrain.cli.run_commands import diff, export, ls, member, plot, prune, report, show, verify

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Rich keeps bold and dim text if NO_COLOR is set; plain help has neither.
    rich_markup_mode=None if os.environ.get("NO_COLOR") else "rich",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        python = platform.python_version()
        print(f"functrain {__version__}, torch {version_of('torch')}, Python {python}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="and exit")
    ] = False,
) -> None:
    """Train PyTorch models as pure functions of a state."""


_COMMANDS: dict[Callable[..., None], tuple[str, ...]] = {
    train: (
        "functrain train digits",
        'functrain train digits fit.until="5 epochs" model.width=16',
        "functrain train my_project/train.yaml directory=runs/second",
    ),
    compile: ("functrain compile digits program.compiled=true",),
    init: ("functrain init my_project",),
    ls: ("functrain ls runs", "functrain ls runs/digits --monitor eval/accuracy --mode max"),
    show: (
        "functrain show runs/digits --only 'train.params.*' --stats",
        "functrain show runs/digits@best",
    ),
    diff: ("functrain diff runs/a runs/b", "functrain diff runs/a@100 runs/a@200"),
    verify: ("functrain verify runs/digits",),
    export: ("functrain export runs/digits@best weights.safetensors --what ema",),
    member: ("functrain member runs/rates@best member --index 3",),
    prune: ("functrain prune runs/digits --keep-last 2 --dry-run",),
    plot: (
        "functrain plot runs/digits",
        "functrain plot runs/a runs/b --metric 'eval/*' --out compared.svg",
    ),
    report: ("functrain report runs/digits",),
    search: ("functrain search digits_search", "functrain search digits_search --report"),
    generate: ("functrain generate runs/chargpt 'The ' --length 200 --temperature 0.7",),
}
for _command, _lines in _COMMANDS.items():
    app.command(epilog=examples(*_lines))(_command)
app.add_typer(configuration, name="config")
