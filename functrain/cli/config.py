"""``functrain config check | show``: inspect a configuration before it is run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from functrain.cli.options import Overrides, Source

if TYPE_CHECKING:
    from functrain.config import Loaded, RunObjects

app = typer.Typer(help="Inspect configurations.", no_args_is_help=True)


@app.command()
def check(source: Source, overrides: Overrides = None) -> None:
    """Build all objects of a configuration, without training or writing."""
    from functrain import config

    loaded = config.load(source, overrides or [])
    with config.importable(loaded):
        print(f"OK {summary(loaded, config.build(loaded.config))}")


@app.command()
def show(
    source: Source,
    overrides: Overrides = None,
    unresolved: Annotated[
        bool, typer.Option("--unresolved", help="do not resolve references")
    ] = False,
) -> None:
    """Print a composed configuration with resolved references."""
    from omegaconf import OmegaConf

    from functrain import config

    loaded = config.load(source, overrides or [])
    plain = loaded.composed if unresolved else loaded.plain
    print(OmegaConf.to_yaml(plain).rstrip())


def summary(loaded: Loaded, built: RunObjects) -> str:
    """Describe a run on one line."""
    config, program = loaded.config, built.program
    fixed = [leaf.fixed for leaf in program.leaves().values()]
    count = sum(one.model.params[path].numel() for one in fixed for path in one.trainable)
    sets = [] if built.eval_data is None else ["eval"]
    if isinstance(built.eval_data, dict):
        sets = list(built.eval_data)
    until = config.fit.until
    parts = [
        f"{', '.join(one.recipe.model for one in fixed) or 'own'} ({count:,} trained parameters)",
        *dict.fromkeys(type(one.recipe.optimizer).__name__ for one in fixed),
        *dict.fromkeys(one.recipe.precision for one in fixed),
        f"until {until if isinstance(until, str) else ' or '.join(until)}",
        *([f"evaluated on {', '.join(sets)}"] if sets else []),
        *([f"seeds {', '.join(map(str, config.seeds))}"] if config.seeds else []),
    ]
    return f"{config.name}: {', '.join(parts)} -> {config.directory}"
