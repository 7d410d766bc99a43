"""Agreement of ranks on a run: that all make the same one, and when somebody asks it to stop.

Every rank makes the same steps and takes the same decisions from the same numbers. Only facts that
one rank alone knows travel: signals, requests of listeners, the time, and the run directory, which
belongs to rank 0.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator, Sequence
from importlib import metadata
from typing import TypeVar

import attrs
import torch
import torch.distributed as dist
from xxhash import xxh3_128_hexdigest

from functrain import tree
from functrain.core.batch_splitting import part_sizes
from functrain.core.protocol import AnyProgram, AnyState
from functrain.data.description import describe, fingerprint
from functrain.data.mixture import MixtureSource
from functrain.data.own_generators import generator_states
from functrain.data.parts import BatchesByParts
from functrain.data.source import Source
from functrain.distributed.exchange import all_gather
from functrain.distributed.group import World
from functrain.distributed.launch import processes
from functrain.errors import ConfigurationError, FunctrainWarning

ALONE = World(0, 1)
T = TypeVar("T")


def world_of(program: AnyProgram, caller: str = "fit") -> World:
    """Return the ranks that train a program; refuse processes that would each train it alone."""
    if program.sharded is not None:
        from functrain.distributed.step import ShardedStep  # DTensor takes long to import

        assert isinstance(program.sharded, ShardedStep)
        return program.sharded.gradients.world
    count = started()
    if count > 1:
        raise ConfigurationError(
            f"{caller}: {count} processes were started, and each would train this program by "
            "itself. Expected a program that they train together: "
            "functrain.sharded(program, parts=...); on the command line program.parts=... . Or "
            "start one process, without torchrun, srun and their variables (WORLD_SIZE, "
            "SLURM_NTASKS)"
        )
    return ALONE


def started() -> int:
    """Return how many processes were started together with this one."""
    joined = dist.is_available() and dist.is_initialized()
    return dist.get_world_size() if joined else processes(os.environ)


@attrs.frozen
class Ranks:
    """The processes of one run, which agree on what one of them alone knows.

    Attributes:
        world: of the processes, for messages between them.
    """

    world: World = ALONE

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which has the files, the clock and most listeners."""
        return self.world.rank == 0

    def broadcast(self, value: T) -> T:
        """Return the value of rank 0 on every rank."""
        return self.world.broadcast(value)

    def first(self, own: float) -> float:
        """Return the number of rank 0 on every rank."""
        return own if self.world.size == 1 else self._numbers([own])[0][0]

    def any_answers(self, own: Sequence[str | None]) -> list[str | None]:
        """Return for each question the answer of the first rank that has one, else ``None``."""
        if self.world.size == 1:
            return list(own)
        has_answer = float(any(answer is not None for answer in own))
        if not any(row[0] for row in self._numbers([has_answer])):
            return list(own)
        return [
            next((answer for answer in answers if answer is not None), None)
            for answers in zip(*self.world.gathered(list(own)), strict=True)
        ]

    def _numbers(self, own: Sequence[float]) -> list[list[float]]:
        """Return a few numbers of each rank, all of which call this."""
        mine = torch.tensor(own, dtype=torch.float64)
        table = torch.empty(self.world.size * len(own), dtype=torch.float64)
        with self.world.failing_together():
            all_gather(table, mine, group=self.world.group)
        found: list[list[float]] = table.view(self.world.size, len(own)).tolist()
        return found

    def require_same_run(self, program: AnyProgram, source: Source, plan: dict[str, str]) -> None:
        """Raise if the runs that the ranks are about to begin differ."""
        if self.world.size == 1:
            return
        recipe = {f"{name} of the recipe": str(v) for name, v in program.recipe.describe().items()}
        params = {k: leaf.fixed.model.params for k, leaf in program.leaves().items()}
        shapes = {k: {p: list(t.shape) for p, t in own.items()} for k, own in params.items()}
        own: dict[str, str | int] = {
            "functrain": metadata.version("functrain"),
            "torch": str(torch.__version__),
            "threads of torch": torch.get_num_threads(),
            "parameters": tree.digest(shapes),
            **recipe,
            **plan,
        }
        self.world.require_equal(own)
        self.world.require_equal(facts(source))

    def require_same_state(self, state: AnyState) -> None:
        """Raise if ranks begin with other states, such as weights that each drew by itself."""
        if self.world.size > 1:
            step, digest = state.counters.step, tree.digest(state)
            self.world.require_equal({"step": step, "state before the first step": digest})

    @contextlib.contextmanager
    def speaking_once(self) -> Iterator[None]:
        """Show functrain's warnings on rank 0 alone; the others would repeat them."""
        with warnings.catch_warnings() if self.world.rank else contextlib.nullcontext():
            if self.world.rank:
                warnings.simplefilter("ignore", FunctrainWarning)
            yield


def facts(source: Source) -> dict[str, str | int]:
    """Return named facts about the data of a rank; any that differ show ranks with other data.

    ``BatchParts.digest`` shows a difference that begins later. Nothing is drawn from data that
    keep a position; of ``Batches`` without workers every rank reads the first part.
    """
    found: dict[str, str | int] = {}
    for name, value in describe(source).items():
        title = f"{name.replace('_', ' ')} of the data"
        found[title] = value if isinstance(value, int) else str(value)
    for place, held in _innermost(source):
        if isinstance(held, BatchesByParts):
            found[f"first batch of the data{place}"] = _first_part(held)
        elif states := generator_states(getattr(held, "data", None)):
            found[f"random generators of the data{place}"] = str(fingerprint([states]))
        if isinstance(held, MixtureSource):
            found[f"draws of the data{place}"] = ", ".join(held.mixture.names(0, 16))
    return found


def _innermost(source: Source, place: str = "") -> Iterator[tuple[str, Source]]:
    """Yield a source and those in it, each with its place."""
    yield place, source
    held = getattr(source, "data", None)
    if isinstance(held, Source):
        yield from _innermost(held, place)
    if isinstance(source, MixtureSource):
        for name, inner in source.opened().items():
            yield from _innermost(inner, f"{place} in source {name!r}")


def _first_part(source: BatchesByParts) -> str:
    """Return a fingerprint of the order of the first batch, and of its first part where it can be.

    A dataset with workers may hold files that must be opened in these only.
    """
    batches = source.batches
    samples = batches.indices(0, 0)
    order = xxh3_128_hexdigest(samples.numpy().tobytes())[:16]
    if batches.workers:
        return order
    first = samples[: part_sizes(len(samples), source.sharing.parts)[0]]
    return f"{order} {fingerprint([batches.read(0, 0, first, 0)])}"
