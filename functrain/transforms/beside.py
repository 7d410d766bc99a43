"""Compiled programs in a run directory: what a run compiles is there when it is resumed."""

from __future__ import annotations

from pathlib import Path

import attrs

from functrain.program import Program
from functrain.transforms.compiled import Compiled


def beside(program: Program, directory: Path) -> Program:
    """A program that keeps in a run directory what it compiles, unless it was told how to compile.

    Only Inductor for the processor does so; other backends have no libraries to keep.

    Args:
        program: any program.
        directory: of the run; ``compiled`` in it is made when there is something to keep.
    """
    made = program.device_step
    if not isinstance(made, Compiled):
        return program
    lowering, device = made.lowering, next(iter(program.fixed.model.params.values())).device
    told = lowering.directory is not None or lowering.mode is not None
    if told or lowering.backend != "inductor" or device.type != "cpu":
        return program
    kept = attrs.evolve(lowering, directory=directory / "compiled")
    return attrs.evolve(program, device_step=attrs.evolve(made, lowering=kept))
