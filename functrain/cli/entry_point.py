"""The commands with the examples of their help; errors print one line, without a traceback.

torchrun ends with a summary, which shows the error file of each rank. So that errors are read once
on the screen, the first rank of each machine prints those that all ranks raise alike.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Annotated

import typer

from functrain import __version__
from functrain.cli.config import app as configuration
from functrain.cli.options import examples
from functrain.cli.output import print_in_any_encoding, show_warning
from functrain.cli.project_commands import compile, generate, init, search, train
from functrain.cli.run_commands import diff, export, ls, member, plot, prune, report, show, verify
from functrain.errors import (
    ConfigError,
    ConfigurationError,
    FunctrainError,
    ListenerError,
    RankFailedError,
    RankMismatchError,
)

# https://docs.pytorch.org/docs/stable/elastic/errors.html
_FILE = "TORCHELASTIC_ERROR_FILE"
_ALIKE = (ConfigError, ConfigurationError, RankFailedError, RankMismatchError)


def main() -> None:
    """Run the command line; errors of functrain print one line without a traceback."""
    warnings.showwarning = show_warning
    print_in_any_encoding()
    try:
        app(prog_name="functrain")
    except FunctrainError as error:
        if isinstance(error, ListenerError):  # an error in the user's code needs its traceback
            _record(traceback.format_exc())
            raise
        # An OSError has the message without "[Errno 2]" in strerror.
        text = f"functrain: {getattr(error, 'strerror', None) or error or type(error).__name__}"
        _record(text)
        if not _is_printed_elsewhere(error):
            print(text, file=sys.stderr)
        sys.exit(2)
    except Exception:  # not hidden: raised again, once torchrun's summary has it
        _record(traceback.format_exc())
        raise


def _record(text: str) -> None:
    """Write an error for torchrun's summary, if torchrun started this process."""
    file = os.environ.get(_FILE)
    if file:
        message = {"message": text, "extraInfo": {"timestamp": int(time.time())}}
        Path(file).write_text(json.dumps({"message": message}), encoding="utf-8")


def _is_printed_elsewhere(error: BaseException) -> bool:
    """Return whether another process on this machine prints the same error."""
    first = os.environ.get("LOCAL_RANK", "0") == "0"
    return isinstance(error, _ALIKE) and not first and bool(os.environ.get(_FILE))


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
