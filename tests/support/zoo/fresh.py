"""Resume saved states in a fresh process: ``python -m zoo.fresh DIRECTORY``."""

from __future__ import annotations

import importlib
import json
import sys
import warnings
from pathlib import Path

import functrain as ft
from functrain import tree
from zoo.entry import Entry

MODULES = ("language", "perception", "packages")


def entries() -> list[Entry]:
    """Return the whole zoo, without the packages that are not installed."""
    found: list[Entry] = []
    for name in MODULES:
        try:
            found += importlib.import_module(f"zoo.{name}").ENTRIES
        except ModuleNotFoundError as error:
            if error.name is not None and error.name.startswith("zoo"):
                raise
            warnings.warn(f"zoo.{name} is left out: {error}", stacklevel=2)
    return found


def stepped(program: ft.Program, state: ft.TrainState, entry: Entry, end: int) -> ft.TrainState:
    """Return a state after the steps up to ``end``, each with the batch of its number."""
    while state.counters.step < end:
        state, _ = program.train_step(state, entry.batch(state.counters.step))
    return state


def main(directory: Path, end: int) -> None:
    """Print the digest of every state at step ``end``."""
    digests = {}
    for entry in entries():
        place = directory / entry.name
        if place.exists():
            program = entry.program()
            state = ft.load(place, like=program.init(0))
            digests[entry.name] = tree.digest(stepped(program, state, entry, end))
    print(json.dumps(digests))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
