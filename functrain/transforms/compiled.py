"""A program whose gradients are a compiled graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import attrs

from functrain.core import step
from functrain.core.program import Program
from functrain.core.protocol import require_one_step, require_plain
from functrain.errors import ConfigurationError
from functrain.errors.calls import explained
from functrain.errors.paths import absolute
from functrain.optim import FromTorch
from functrain.optim.wrapping import nested
from functrain.transforms.graph.device_step import Compiled
from functrain.transforms.graph.lowering import Lowering


@explained
@runtime_checkable
class ByGraphs(Protocol):
    """A program that captures its device part in its own way, as a population does."""

    def by_graphs(self, lowering: Lowering, fallback: bool) -> Program:
        """Return the program with compiled graphs for its device part."""
        ...


def compiled(
    program: Program,
    *,
    mode: str | None = None,
    options: Mapping[str, Any] | None = None,
    backend: str | Callable[..., Any] = "inductor",
    directory: str | Path | None = None,
    update: Literal["kernel", "graph"] = "kernel",
    fallback: bool = False,
) -> Program:
    """Return a program whose gradients are a compiled graph.

    Forward, backward, unscaling, norm and clipping become one graph, captured from one run of their
    Python without data and compiled for the batch's shapes. The update and the average are those of
    an eager step, in a call or two for all parameters. Several micro-batches go through a graph one
    by one. Steps go on without compiling again: counters, rates and random numbers are inputs. A
    batch of another shape, as the last of an epoch may be, has a graph of its own.

    As with ``jax.jit``, Python runs only while a graph is captured: what ``loss`` reads from
    globals is then built in. Random numbers may differ from those of the eager program, so a run is
    resumed with the transformation it was started with.

    Args:
        program: any eager program, donated or not. With ``donated`` the state is updated in place.
        mode: a mode of ``torch.compile``, such as ``"max-autotune"``. Inductor's CUDA graphs, which
            some modes ask for, are not used: what they return does not last as long as a state.
        options: settings of Inductor by name, as ``torch.compile(options=...)`` takes them.
        backend: another backend of ``torch.compile``, or ``"eager"`` for the graph uncompiled.
        directory: compile ahead of time into libraries that are kept there: that takes longer, a
            step is faster on the CPU, and the next process that needs the same graph has only to
            load it. Anyone who can write there can run code as you. By default a run that has a
            directory keeps its libraries in a cache of your own, if neither this nor ``mode`` is
            given.
        update: ``"kernel"`` updates by the optimizer's kernel. ``"graph"`` compiles its rule, too,
            which takes longer: for an optimizer that torch has no fused kernel of.
        fallback: where the step cannot be captured or compiled, warn and run it eagerly.

    Returns:
        The compiled program. Its first step raises ``CaptureError`` where the step is no graph,
        with the line of the user's code, and ``CompilationError`` where the backend fails.

    Raises:
        ConfigurationError: with ``update="graph"`` the optimizer is, or has in it, one of
            ``from_torch``, whose class runs as ordinary Python; or the program is no eager one.

    Example:
        >>> import functrain as ft, torch
        >>> loss = lambda model, batch: (model(batch) ** 2).mean()
        >>> program = ft.program(torch.nn.Linear(2, 1), loss, ft.optim.AdamW(lr=0.1))
        >>> program = ft.donated(ft.compiled(program, backend="eager"))
        >>> state, metrics = program.train_step(program.init(), torch.ones(4, 2))
        >>> state.counters.step
        1
    """
    require_plain(program, "compiled")
    require_one_step(program, "compiled")
    if program.sharded is not None:
        raise ConfigurationError(
            "compiled cannot take a sharded program yet: leave out one of the two"
        )
    kept = None if directory is None else absolute(directory)
    lowering = Lowering(backend, mode, dict(options or {}), kept)
    if isinstance(program, ByGraphs):
        found: Program = program.by_graphs(lowering, fallback)
        return found
    if not step.is_eager(program.device_step):
        raise ConfigurationError("compiled takes an eager program: apply it before anything else")
    if update not in ("kernel", "graph"):
        raise ConfigurationError(f"update: expected 'kernel' or 'graph', got {update!r}")
    of_torch = any(isinstance(one, FromTorch) for one in nested(program.recipe.optimizer))
    if update == "graph" and of_torch:
        raise ConfigurationError(
            "compiled cannot take an optimizer of from_torch into its graph; use the one of "
            'functrain.optim that is the same, or leave out update="graph"'
        )
    made = Compiled(program.fixed, lowering, fallback, update == "graph")
    return attrs.evolve(program, device_step=made)
