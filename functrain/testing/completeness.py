"""Check that a step depends only on state and batch: make it again under other conditions."""

from __future__ import annotations

import contextlib
import copy as python
import os
import pickle
import tempfile
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import attrs

from functrain.core.protocol import AnyProgram
from functrain.data import as_source
from functrain.errors import ConfigurationError, IncompleteError
from functrain.testing import global_state
from functrain.testing.code_variables import module_of, variables
from functrain.testing.factories import Importable, Make, fit_arguments, importable, is_importable
from functrain.testing.module_attributes import ModuleAttributes, try_other_batches
from functrain.testing.observed_calls import snapshots
from functrain.testing.run_parts import fresh_process
from functrain.testing.snapshots import Change, Snapshot, changes
from functrain.training.forking import fork
from functrain.tree.nodes import copy

_MOST = 12  # changes in a message
_SEEDS = {"torch": 0, "random": 0, "numpy": 0}
_OTHER_SEEDS = {"torch": 1, "random": 1, "numpy": 1}

REPEATED = "when it is repeated"
GENERATORS = "with the global generators in another state"
OTHER_STEPS = "after other steps"
HASH_SEED = "with another PYTHONHASHSEED"
CLOCK = "in another time zone"
DIRECTORY = "in another working directory"
PROCESS = "in another process"

_ADVICE = {
    REPEATED: "Look for counters, clocks and random generators of its own",
    GENERATORS: "Draw in loss, model or optimizer, where each step seeds the generators",
    OTHER_STEPS: "Look for what the code remembers, such as functools.lru_cache",
    HASH_SEED: "Sort sets before their order matters",
    CLOCK: "Leave time to listeners, or give it with the batch",
    DIRECTORY: "Read files when the program is made, by absolute paths",
    PROCESS: "Look for os.getpid, id(), files and other differences of processes",
}
_KEPT = "Make it a buffer (register_buffer), part of the optimizer's state, or part of the batch"


def check_complete(make: Make, state: Any = None, batch: Any = None) -> None:
    """Check that nothing outside of state and batch changes a step.

    A step runs several times from the same bytes in this process: at once, with the global
    generators in another state, and after other steps. If ``make`` can be imported, it also runs
    in two fresh processes, one of them with another hash seed, time zone, working directory and
    generators, and after other steps. All results must have the same bytes.

    Args:
        make: a function that returns a program or the keyword arguments of ``fit``; or these.
        state: the state of the step; ``program.init()`` by default.
        batch: the batch of the step; the first of the data by default.

    Raises:
        IncompleteError: some differ. It names the condition, the first leaf, and what the steps
            changed in attributes, globals, closures and defaults of the code in the program.
        ConfigurationError: there is no batch.

    Example:
        >>> import functrain as ft, torch
        >>> class Counting(torch.nn.Linear):
        ...     calls = 0
        ...     def forward(self, x):
        ...         self.calls += 1
        ...         return super().forward(x) * self.calls
        >>> loss = lambda model, batch: model(batch).square().mean()
        >>> program = ft.program(Counting(2, 1), loss, ft.optim.SGD(lr=0.1))
        >>> check_complete(program, batch=torch.ones(3, 2))
        Traceback (most recent call last):
        functrain.errors.IncompleteError: a step gives other bytes when it is repeated:
          new_state.params['weight']: 2 of 2 elements, first at [0, 0]: ...
          a step changed module.calls: 2 is new
          Make it a buffer (register_buffer), part of the optimizer's state, or part of the batch
    """
    step = _Step.of(make, state, batch)
    _check_in_this_process(step)
    if is_importable(make):
        _check_in_fresh_processes(make, step)


@attrs.frozen(eq=False)
class _Step:
    """A program, and the state and batch of the step that is repeated."""

    program: AnyProgram
    state: Any
    batch: Any

    @classmethod
    def of(cls, make: Make, state: Any, batch: Any) -> _Step:
        arguments = fit_arguments(make)
        program: AnyProgram = arguments["program"]
        state = program.init() if state is None else state
        return cls(program, state, _first_batch(arguments) if batch is None else batch)

    def take(self) -> dict[str, Any]:
        """Make the step from copies of state and batch."""
        new, metrics = self.program.train_step(copy(self.state), python.deepcopy(self.batch))
        return {"new_state": new, "metrics": metrics}

    def take_others(self) -> None:
        """Make two steps with another seed, on another batch if a varied one is valid."""
        try:
            other = fork(self.state, seed=0x5EED)
        except ConfigurationError:  # a population, whose members have seeds of their own
            other = self.state

        def call(batch: Any) -> None:
            state = copy(other)
            for _ in range(2):
                state, _ = self.program.train_step(state, batch)

        attributes = ModuleAttributes.of(module_of(self.program))
        try_other_batches(call, self.batch, attributes)


def _first_batch(arguments: dict[str, Any]) -> Any:
    if arguments.get("data") is None:
        raise ConfigurationError("check_complete needs a batch, or data that make gives with it")
    source = as_source(arguments["data"])
    try:
        return next(iter(source.epoch(0, 0, 0, None)))
    finally:
        source.close()


def _check_in_this_process(step: _Step) -> None:
    before = snapshots(variables(step.program))

    def kept() -> list[Change]:
        found = changes(before, snapshots(variables(step.program)))
        return [each for each in found if not each.place.endswith(".training")]

    with _conditions(set()):
        usual = snapshots(step.take())
    for condition in (REPEATED, GENERATORS, OTHER_STEPS):
        with _conditions({condition}):
            if condition == OTHER_STEPS:
                step.take_others()
            result = snapshots(step.take())
        _require_same(condition, usual, result, kept)


def _require_same(
    condition: str, usual: Snapshot, result: Snapshot, kept: Callable[[], list[Change]] = list
) -> None:
    """Raise an error if two results differ; ``kept`` returns what the steps have changed."""
    differing = changes(usual, result, "{} and {}")
    if not differing:
        return
    leaf, changed = differing[0], kept()
    lines = [f"{leaf.place}: {leaf.detail}"]
    lines += [f"a step changed {each.place}: {each.detail}" for each in changed[:_MOST]]
    lines.append(_KEPT if changed else _ADVICE[condition])
    message = f"a step gives other bytes {condition}:" + "".join(f"\n  {line}" for line in lines)
    raise IncompleteError(message, condition, leaf.place, [each.place for each in changed])


@contextlib.contextmanager
def _conditions(varied: set[str]) -> Iterator[None]:
    """Seed the generators, and vary zone and directory; restore the global state afterwards."""
    with contextlib.ExitStack() as held:
        held.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        held.enter_context(global_state.preserved())
        global_state.seed(_OTHER_SEEDS if GENERATORS in varied else _SEEDS)
        if DIRECTORY in varied:
            os.chdir(held.enter_context(tempfile.TemporaryDirectory()))
        if CLOCK in varied:
            held.enter_context(global_state.another_zone())
        yield


def _check_in_fresh_processes(make: Make, step: _Step) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "given").write_bytes(pickle.dumps((step.state, step.batch)))

        def run(varied: set[str]) -> Snapshot:
            return _in_a_fresh_process(importable(make), folder, varied)

        alone = (OTHER_STEPS, HASH_SEED, CLOCK, DIRECTORY, GENERATORS)
        with ThreadPoolExecutor(2) as pool:
            usual, result = pool.map(run, (set(), set(alone)))
        if not changes(usual, result):
            return
        _require_same(PROCESS, usual, run(set()))
        for condition in alone:
            _require_same(condition, usual, run({condition}))
        _require_same(PROCESS, usual, result)


def _in_a_fresh_process(make: Importable, folder: str, varied: set[str]) -> Snapshot:
    handle, result = tempfile.mkstemp(dir=folder)
    os.close(handle)
    options = {"make": attrs.asdict(make), "given": str(Path(folder, "given"))}
    options |= {"varied": sorted(varied), "result": result}
    seed = 2 if HASH_SEED in varied else 1
    done = fresh_process("functrain.testing.completeness", "child", options, seed)
    if done.returncode:
        raise ConfigurationError(f"make failed in a fresh process:\n{done.stderr[-2000:]}")
    return snapshots(pickle.loads(Path(result).read_bytes()))


def child(options: dict[str, Any]) -> None:
    """Store the result of a step; the entry point of a fresh process."""
    make = Importable(**options["make"]).load()
    state, batch = pickle.loads(Path(options["given"]).read_bytes())
    step = _Step.of(make, state, batch)
    if OTHER_STEPS in options["varied"]:
        with _conditions({GENERATORS}):
            step.take_others()
    with _conditions(set(options["varied"])):
        result = step.take()
    Path(options["result"]).write_bytes(pickle.dumps(result))
