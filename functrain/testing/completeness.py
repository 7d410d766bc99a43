"""Check that a step depends only on the state, by varying everything else one by one."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import attrs

from functrain import tree
from functrain.core.protocol import AnyProgram
from functrain.data import as_source
from functrain.errors import ConfigurationError, IncompleteError
from functrain.testing.conditions import ADVICE, Conditions, Influence
from functrain.testing.factories import Importable, Make, fit_arguments, importable, is_importable
from functrain.testing.fake_system import FILE, MOMENTS, URANDOM, FakeSystem, clocks
from functrain.testing.run_parts import fresh_process
from functrain.testing.step_variation import StepVariation

_REPEATS = 3


def check_complete(make: Make, state: Any = None, batch: Any = None) -> list[Influence]:
    """Find everything outside the state that influences a step, and refuse hidden state.

    A step runs repeatedly while one thing at a time varies and everything else is fixed: the global
    random generators and the system's random bytes, the clocks, the process id, the environment
    variables that the step reads, the working directory, numbers in attributes of the module and of
    classes, globals, closure variables and defaults that the user's code in loss, model, optimizer
    and schedule uses, and, if ``make`` can be imported, the hash seed, in fresh processes. A value
    that a step itself changes is set to the value after that step, and to the value after a step on
    another state and batch. Everything is restored; ``functools.lru_cache`` is left empty.

    Args:
        make: a function that returns a program or the keyword arguments of ``fit``; or these.
        state: the state of the step; ``program.init()`` by default.
        batch: the batch of the step; the first of the data by default.

    Returns:
        The influences. All are ``"constant"``, such as a number in a global: they belong in the
        configuration, because a checkpoint does not contain them.

    Raises:
        IncompleteError: some are ``"hidden state"``: a step changes them, or they change by
            themselves. A resumed run would differ.
        ConfigurationError: there is no batch.

    Example:
        >>> import functrain as ft, torch
        >>> import os
        >>> def loss(model, batch):
        ...     return model(batch).square().mean() * float(os.environ.get("SCALE", "1"))
        >>> program = ft.program(torch.nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.1))
        >>> for influence in check_complete(program, batch=torch.ones(3, 2)):
        ...     print(influence.name, influence.kind, influence.verdict)
        SCALE environment variable constant
    """
    arguments = fit_arguments(make)
    program: AnyProgram = arguments["program"]
    given = _first_batch(arguments) if batch is None else batch
    varying = StepVariation.of(program, program.init() if state is None else state, given)
    try:
        found = _influences(varying)
    finally:
        varying.empty()
    if is_importable(make) and not any(each.kind == "unknown" for each in found):
        found += _of_the_hash_seed(make, state, batch)
    hidden = [influence for influence in found if influence.verdict == "hidden state"]
    if hidden:
        lines = "".join(f"\n  {each}. {ADVICE.get(each.kind, ADVICE[''])}" for each in hidden)
        raise IncompleteError(f"a step depends on values that are not in the state:{lines}", found)
    return found


def _influences(varying: StepVariation) -> list[Influence]:
    # A step that differs without any variation cannot be judged. Such differences may be rare,
    # so check for them again after each finding.
    found = [*_by_itself(varying)]
    found += [] if found else [*varying.cells(), *varying.caches(), *_around(varying)]
    by_chance = (each for _ in range(_REPEATS if found else 0) for each in _by_itself(varying))
    return next(([each] for each in by_chance), found)


def _first_batch(arguments: dict[str, Any]) -> Any:
    if arguments.get("data") is None:
        raise ConfigurationError("check_complete needs a batch, or data that make gives with it")
    source = as_source(arguments["data"])
    try:
        return next(iter(source.epoch(0, 0, 0, None)))
    finally:
        source.close()


def _by_itself(varying: StepVariation) -> Iterator[Influence]:
    """Two steps under the same conditions must give the same."""
    found = varying.differs(Conditions())
    if found is not None:
        detail = f"two steps under the same conditions differ: {found}"
        seen = [f"{cell.name} ({type(cell.read()).__name__})" for cell in varying.unheld]
        seen += sorted(each for each in varying.asked if each.startswith(FILE))
        detail += f". Seen, and cannot be held: {', '.join(seen)}" if seen else ""
        yield Influence("something that was not found", "unknown", "hidden state", detail)


def _around(varying: StepVariation) -> list[Influence]:
    """Return the influences of generators, system, environment and working directory."""
    found: dict[str, Influence] = {}
    for conditions, name, kind in _variations(varying):
        detail = None if name in found else varying.differs(conditions)
        if detail is not None:
            hidden = kind in ("generator", "clock", "process")
            found[name] = Influence(name, kind, "hidden state" if hidden else "constant", detail)
    return list(found.values())


def _variations(varying: StepVariation) -> Iterator[tuple[Conditions, str, str]]:
    """Vary the generators, the system, the environment and the working directory."""
    for name in ("torch", "random", "numpy"):
        seeds = {**Conditions().seeds, name: 1}
        yield Conditions(seeds=seeds), f"the global generator of {name}", "generator"
    asked = clocks(varying.asked)
    for now in MOMENTS:
        yield Conditions(system=FakeSystem(now=now)), asked, "clock"
    yield Conditions(system=FakeSystem(process=4343)), "os.getpid", "process"
    drawn = f"{URANDOM}, for uuid4, secrets and SystemRandom"
    yield Conditions(system=FakeSystem(seed=1)), drawn, "generator"
    for name in sorted(varying.environment):
        changed = {name: varying.other_value(name)}
        yield Conditions(environment=changed), name, "environment variable"
    with tempfile.TemporaryDirectory() as directory:
        yield Conditions(directory=directory), "the working directory", "directory"


def _of_the_hash_seed(make: Make, state: Any, batch: Any) -> list[Influence]:
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "given")
        file.write_bytes(pickle.dumps((state, batch)))
        options = {"make": attrs.asdict(importable(make)), "file": str(file)}
        module = "functrain.testing.completeness"

        def digest(seed: int) -> str:
            done = fresh_process(module, "child", options, seed)
            if done.returncode:
                raise ConfigurationError(f"make failed in a fresh process:\n{done.stderr[-2000:]}")
            return done.stdout

        with ThreadPoolExecutor(2) as pool:
            first, second = pool.map(digest, (1, 2))
        if first == second:
            return []
        if digest(1) != first:
            detail = "two processes with the same PYTHONHASHSEED give different bytes"
            return [Influence("something that was not found", "process", "hidden state", detail)]
    detail = "processes with PYTHONHASHSEED 1 and 2 give different bytes"
    return [Influence("the hash seed", "hash seed", "hidden state", detail)]


def child(options: dict[str, Any]) -> None:
    """Print a digest of a step; the entry point of a fresh process."""
    arguments = fit_arguments(Importable(**options["make"]).load())
    program: AnyProgram = arguments["program"]
    state, batch = pickle.loads(Path(options["file"]).read_bytes())
    state = program.init() if state is None else state
    batch = _first_batch(arguments) if batch is None else batch
    varying = StepVariation.of(program, state, batch)
    print(tree.digest(varying.step(Conditions())))
