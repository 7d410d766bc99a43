"""``functrain.population``: members from a program, hyperparameters and seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from functrain.core import step
from functrain.core.program import Program
from functrain.core.protocol import require_one_step, require_plain
from functrain.core.rng import checked_seed
from functrain.errors import ConfigurationError
from functrain.errors.validators import integer, is_integer, one_of, optional
from functrain.populations import hyperparameters as named
from functrain.populations.batches import Batches
from functrain.populations.program import Population
from functrain.populations.step import EagerMembers


def population(
    program: Program,
    hyperparameters: Mapping[str, Sequence[Any]] | None = None,
    *,
    seeds: Sequence[int] | int | None = None,
    batches: Batches = "shared",
    chunk_size: int | None = None,
) -> Population:
    """Make a population: members of one program that one step trains, with other numbers in each.

    Every member has the numbers of ``pop.programs[i]`` trained alone, except for rounding, whatever
    the other members are. On a CPU it has the same bytes, too, however many they are (2 or more)
    and in any order, where the sizes of layers and batches are multiples of 16 bytes.

    Args:
        program: any eager program, donated or not. ``compiled`` and ``donated`` take the
            population.
        hyperparameters: by path, a value for each member: any float of the optimizer
            (``"weight_decay"``, ``"betas"``, in groups ``"1.lr"``), ``"clip_norm"``,
            ``"clip_value"``, ``"ema"`` (the decay), and of schedules (``"lr"``, a number or any
            schedule; ``"lr.end"``, a field of one).
        seeds: of initial weights (where the program has a model factory) and random numbers, one
            for each member, or one for all; by default 0, 1, 2, ...
        batches: ``"shared"`` gives every member the same batch; with ``"own"`` the tensors of a
            batch have an axis of members in front.
        chunk_size: compute so many members at once, at least 2, as in ``torch.func.vmap``; ``None``
            for all of them. Members have the same bytes; convolutions and attention take less
            memory, and on a CPU less time. A compiled step has one graph where it divides the
            number of members, else two.

    Raises:
        UnsupportedError: ``program`` is no program.
        ConfigurationError: a name is unknown, lists are not of one length, values decide which
            tensors the optimizer keeps, or the program cannot be mapped over members.

    Example:
        >>> import functrain as ft, torch
        >>> loss = lambda model, batch: model(batch).square().mean()
        >>> program = ft.program(lambda: torch.nn.Linear(2, 1), loss, ft.optim.AdamW(lr=0.1))
        >>> pop = ft.population(program, {"lr": [0.1, 0.2], "weight_decay": [0.0, 0.1]})
        >>> state = pop.init()
        >>> state, metrics = pop.train_step(state, torch.ones(4, 2))
        >>> metrics["loss"].shape, metrics["lr"].tolist()
        (torch.Size([2]), [0.1, 0.2])
        >>> one, _ = pop.programs[1].train_step(pop.member(state, 1), torch.ones(4, 2))
        >>> one.counters.step
        2
    """
    one_of("shared", "own").check("batches", batches)
    optional(integer(minimum=2)).check("chunk_size", chunk_size)
    require_plain(program, "population")
    require_one_step(program, "population")
    if isinstance(program, Population) or not step.is_eager(program.device_step):
        raise ConfigurationError(
            "population takes an eager program: apply compiled, donated and the like to the "
            "population, functrain.compiled(functrain.population(program, ...))"
        )
    named.refuse_unmapped(program)
    if not isinstance(hyperparameters, Mapping | None):
        raise ConfigurationError(
            'population: expected hyperparameters by name, {"lr": [0.1, 0.2]}, or seeds=[0, 1], '
            f"got {hyperparameters!r}"
        )
    given = dict(hyperparameters or {})
    own_seeds = _seeds(seeds, given)
    values = named.checked(program, given, len(own_seeds))
    programs = named.programs(program, values, len(own_seeds))
    fixed = programs[0].fixed
    return Population(
        fixed=fixed,
        schedules={str(n): one.schedules for n, one in enumerate(programs)},
        device_step=EagerMembers(fixed, batches == "own"),  # type: ignore[arg-type]
        donates=program.donates,
        zero_rate=program.zero_rate,
        programs=[attrs.evolve(one, donates=False) for one in programs],
        values=values,
        seeds=own_seeds,
        batches=batches,
        chunk_size=chunk_size,
    )


def _seeds(seeds: Any, given: Mapping[str, Any]) -> tuple[int, ...]:
    members = next((len(each) for each in given.values() if hasattr(each, "__len__")), None)
    if seeds is None or is_integer(seeds):
        if not members:
            raise ConfigurationError(
                "population: expected hyperparameters or seeds, one for each member, got "
                f"hyperparameters={given!r} and seeds={seeds!r}"
            )
        return tuple(range(members)) if seeds is None else (checked_seed(seeds),) * members
    found = tuple(map(checked_seed, seeds))
    if not found or (members is not None and members != len(found)):
        raise ConfigurationError(
            f"population: expected lists of one length, with a value for each member, got "
            f"{len(found)} seeds and {members} values of {next(iter(given), 'no hyperparameter')!r}"
        )
    return found
