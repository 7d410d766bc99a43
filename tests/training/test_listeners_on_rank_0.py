"""A listener that only rank 0 calls is refused what needs every rank, at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rank_runs
import ranks
from sharded_runs import batches

import functrain as ft
from functrain import tree
from functrain.distributed import current
from functrain.errors import AloneError, ListenerError, RankFailedError

OPERATIONS: dict[str, Callable[[ft.Program, ft.TrainState, Path], object]] = {
    "gathered": lambda program, state, path: program.gathered(state),
    "place": lambda program, state, path: program.place(state),
    "digest": lambda program, state, path: tree.digest(state),
    "diff": lambda program, state, path: tree.diff(state, state),
    "save": lambda program, state, path: ft.save(path / "saved", state),
    "evaluate": lambda program, state, path: ft.evaluate(program, state, batches("MLP", [8])),
    "step": lambda program, state, path: program.train_step(state, batches("MLP", [8])[0]),
    "barrier": lambda program, state, path: current().barrier(),
}


def calling(path: Path, operation: str, shard: Any, every_rank: bool) -> str:
    program = rank_runs.program(shard, model="MLP")
    listener = Calling(lambda state: OPERATIONS[operation](program, state, path))
    listener.every_rank = every_rank
    data = batches("MLP", [16] * 3)
    return ft.fit(program, data, until="3 steps", listeners=[listener], directory=path).reason


class Calling:
    """Calls a function after the second step."""

    every_rank = False

    def __init__(self, function: Callable[[ft.TrainState], object]) -> None:
        self.function = function

    def on_batch_end(self, event: ft.events.BatchEnd) -> None:
        if event.state.counters.step == 2:
            self.function(event.state)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_of_all_ranks_is_refused_at_once(tmp_path: Path, operation: str) -> None:
    first, second = ranks.outcomes(calling, 2, tmp_path, operation, "all", False)
    assert type(first) is ListenerError, first
    assert "Calling.on_batch_end failed at step 2: RankMismatchError" in str(first)
    assert "rank 0 only, unless they have the attribute every_rank = True" in str(first)
    assert type(second) is RankFailedError
    assert "every_rank = True" in str(second)


@pytest.mark.parametrize("operation", ["save", "barrier"])
def test_a_listener_of_every_rank_may_call_it(tmp_path: Path, operation: str) -> None:
    assert ranks.run(calling, 2, tmp_path, operation, "all", True) == ["max_steps"] * 2


@pytest.mark.parametrize("operation", ["gathered", "digest", "evaluate"])
def test_a_state_that_rank_0_has_whole_needs_no_other_rank(tmp_path: Path, operation: str) -> None:
    assert ranks.run(calling, 2, tmp_path, operation, "none", False) == ["max_steps"] * 2


def test_one_process_is_never_alone(tmp_path: Path) -> None:
    assert calling(tmp_path, "step", "all", False) == "max_steps"


def started_thread() -> bool:
    """Return whether a thread that a lonely block starts may wait for others."""
    import threading

    from functrain.tree.placed import alone, require_all_ranks

    found: list[bool] = []
    with alone("others wait here"):
        with pytest.raises(AloneError, match="a step needs every rank, but others wait here"):
            require_all_ranks("a step")
        thread = threading.Thread(target=lambda: found.append(require_all_ranks("a step") is None))
        thread.start()
        thread.join()
    require_all_ranks("a step")
    return found == [True]


def test_a_background_save_that_a_listener_starts_is_not_alone() -> None:
    assert started_thread()
