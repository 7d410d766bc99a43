"""Commands and exit codes. Bad input is one line and exit code 2."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from functrain.errors import FunctrainError, FunctrainWarning, ListenerError

app = typer.Typer(
    help="Train PyTorch models as pure functions of a state.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
Directory = Annotated[Path, typer.Argument(help="a run directory")]
_PLAIN_WIDTH = 100


@app.command()
def train(
    source: Annotated[str, typer.Argument(help="digits, chargpt, or a YAML file")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value ...")] = None,
) -> None:
    """Train; the same command again continues, or says that it is done."""
    from functrain.cli.train import train

    raise typer.Exit(train(source, overrides or [], _console()))


@app.command()
def diff(first: Directory, second: Directory) -> None:
    """Say whether two runs are the same, and if not, where they part (exit code 1)."""
    from functrain.cli.inspect import diff

    raise typer.Exit(0 if diff(first, second, _console()) else 1)


@app.command()
def ls(directory: Directory) -> None:
    """List the checkpoints of a run."""
    from functrain.cli.inspect import list_checkpoints

    list_checkpoints(directory, _console())


@app.command()
def show(directory: Directory) -> None:
    """Show the newest state of a run."""
    from functrain.cli.inspect import show

    show(directory, _console())


@app.command()
def plot(directory: Directory) -> None:
    """Draw the curves of a run again."""
    from functrain.cli.train import redraw

    _console().print(redraw(directory), soft_wrap=True)


@app.command()
def generate(
    directory: Directory,
    prompt: Annotated[str, typer.Argument(help="how the text begins")],
    length: Annotated[int, typer.Option(help="how much to add")] = 300,
    temperature: Annotated[float | None, typer.Option(help="0 takes the most likely")] = None,
    top_k: Annotated[int | None, typer.Option(help="draw from so many only")] = None,
    top_p: Annotated[float | None, typer.Option(help="draw from so much probability")] = None,
    repetition_penalty: Annotated[float | None, typer.Option(help="above 1: vary more")] = None,
    seed: Annotated[int | None, typer.Option(help="of the random stream")] = None,
) -> None:
    """Let the newest state of a run go on with a prompt."""
    from functrain.cli.generate import generate

    options = {
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "repetition_penalty": repetition_penalty,
        "seed": seed,
    }
    print(generate(directory, prompt, length, options))


def main() -> None:
    """Run the command line; what functrain says of bad input is one line, without a traceback."""
    warnings.showwarning = _show_warning
    try:
        app()
    except ListenerError:
        raise  # from an error in the user's own code, whose traceback is needed
    except FunctrainError as error:
        # Of an OSError the sentence without "[Errno 2]".
        text = getattr(error, "strerror", None) or str(error)
        first, *rest = text.splitlines() or [type(error).__name__]
        more = "" if not rest else "\n" + "\n".join(rest)
        print(f"functrain: {first}{more}", file=sys.stderr)
        sys.exit(2)


def _console() -> Console:
    console = Console()
    # Without a terminal rich assumes 80 columns, which breaks paths in tables.
    return console if console.is_terminal else Console(width=_PLAIN_WIDTH)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,
    line: str | None = None,
) -> None:
    if issubclass(category, FunctrainWarning):
        print(f"functrain: {message}", file=sys.stderr)
    else:
        text = warnings.formatwarning(message, category, filename, lineno, line)
        print(text, end="", file=sys.stderr)
