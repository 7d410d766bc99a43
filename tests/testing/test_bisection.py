"""Row 54: the first step, leaf and element at which two runs differ, and where it came from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import functrain as ft
from functrain import errors
from functrain.checkpoint import verify
from functrain.listeners import Digests
from functrain.testing.bisect import Parting
from functrain.testing.bisect.records import by_checkpoints, by_digests, by_logs, records

pytestmark = pytest.mark.row(54)
STEPS, SIZE = 20, 4
SPOILED = 17  # a sample, of the batch of step 5 where nothing is shuffled


def columns(nudge: int | None = None) -> tuple[Tensor, Tensor]:
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    y = (x.sum(1) > 0).long()
    if nudge is not None:
        x[nudge, 2] = torch.nextafter(x[nudge, 2], torch.tensor(10.0))
    return x, y


def loss(model: nn.Module, batch: Any) -> ft.Loss:
    x, y = batch
    logits = model(x)
    return ft.Loss(F.cross_entropy(logits, y), metrics={"size": logits.detach().abs().mean()})


def make(
    directory: Path | None = None,
    *,
    momentum: float = 0.1,
    nudge: int | None = None,
    optimizer: Any = None,
    **options: Any,
) -> Callable[[], dict[str, Any]]:
    """A function that makes the arguments of a small run; each option changes one thing."""
    of_fit = {key: options.pop(key) for key in ("seed", "until", "eval_data") if key in options}

    def model() -> nn.Module:
        norm = nn.BatchNorm1d(8, momentum=momentum)
        return nn.Sequential(nn.Linear(3, 8), norm, nn.Dropout(0.2), nn.Linear(8, 2))

    program = ft.program(
        model,
        options.pop("loss", loss),
        optimizer or ft.optim.AdamW(lr=0.01),
        ema=options.pop("ema", 0.9),
        **options,
    )
    return lambda: {
        "program": program,
        "data": ft.data.Batches(columns(nudge), SIZE, shuffle=False),
        "until": f"{STEPS} steps",
        "directory": None if directory is None else ft.Checkpoints(directory),
        "eval_every": "6 steps",
        "eval_data": [columns()],
        "save_every": "3 steps",
        **of_fit,
    }


def run(arguments: Callable[[], dict[str, Any]], *listeners: Any) -> ft.Run:
    options = arguments()
    return ft.fit(options.pop("program"), options.pop("data"), listeners=listeners, **options)


def found(*sides: Any) -> Parting:
    parting = ft.bisect(*sides)
    assert parting is not None
    return parting


def test_the_same_program_and_data_never_part() -> None:
    assert ft.bisect(make(), make()) is None


def test_one_bit_of_one_sample_is_found_in_its_batch() -> None:
    parting = found(make(), make(nudge=SPOILED))
    assert (parting.step, parting.part, parting.leaf) == (5, "batch", "batch.0")
    first = parting.differences[0]
    assert (first.index, first.ulps) == ((1, 2), 1)
    assert first.first == columns()[0][SPOILED, 2].item()
    assert first.second == columns(SPOILED)[0][SPOILED, 2].item()
    assert "the data gave another batch" in str(parting)
    assert "element [1, 2] is" in str(parting)


def doubled_gradient(model: nn.Module, batch: Any) -> ft.Loss:
    plain = loss(model, batch)
    return ft.Loss(plain.value + (plain.value - plain.value.detach()), metrics=plain.metrics)


def other_metric(model: nn.Module, batch: Any) -> ft.Loss:
    plain = loss(model, batch)
    return ft.Loss(plain.value, metrics={"size": plain.metrics["size"] + 1})


def slightly_more(model: nn.Module, batch: Any) -> ft.Loss:
    plain = loss(model, batch)
    return ft.Loss(plain.value * (1 + 1e-6), metrics=plain.metrics)


def from_step(n: int) -> Any:
    """A rate that is another one from update ``n`` on, counted from 1."""
    return lambda step: 0.01 if step < n - 1 else 0.02


PLANTED = {
    "lr": ({"optimizer": ft.optim.AdamW(lr=0.02)}, 1, "lr"),
    "loss": ({"loss": slightly_more}, 1, "loss"),
    "metrics": ({"loss": other_metric}, 1, "size"),
    "gradients": ({"loss": doubled_gradient}, 1, "gradients.0.weight"),
    "moments": ({"optimizer": ft.optim.AdamW(0.01, betas=(0.8, 0.999))}, 1, "optimizer.exp_avg"),
    "clipping": ({"clip_norm": 0.01}, 1, "optimizer.exp_avg"),
    "decay": ({"optimizer": ft.optim.AdamW(0.01, weight_decay=0.5)}, 1, "params.0.weight"),
    "ema": ({"ema": 0.8}, 2, "ema.params.0.weight"),
    "buffers": ({"momentum": 0.2}, 1, "buffers.1.running_mean"),
    "seed": ({"seed": 1}, 1, "state.params.0.weight"),
    "evaluation": ({"eval_data": [(2 * columns()[0], columns()[1])]}, 6, "eval/"),
    "end": ({"until": "9 steps"}, 10, ""),
}
PART = {"moments": "optimizer", "clipping": "optimizer", "decay": "params", "seed": "state before"}


@pytest.mark.parametrize("name", list(PLANTED))
def test_what_was_planted_is_found_in_its_part_of_the_step(name: str) -> None:
    options, step, leaf = PLANTED[name]
    parting = found(make(), make(**options))
    assert (parting.step, parting.part) == (step, PART.get(name, name))
    assert parting.leaf.startswith(leaf)
    assert parting.entered in str(parting)
    assert not parting.records


def test_a_schedule_of_the_same_beginning_parts_where_it_bends() -> None:
    both = [make(optimizer=ft.optim.AdamW(from_step(n))) for n in (8, 12)]
    assert (found(*both).step, found(*both).part) == (8, "lr")


def test_a_model_of_another_shape_differs_from_the_beginning() -> None:
    def wide() -> dict[str, Any]:
        program = ft.program(lambda: nn.Linear(3, 2), loss, ft.optim.AdamW(lr=0.01), ema=0.9)
        return {**make()(), "program": program}

    parting = found(make(), wide)
    assert (parting.step, parting.part) == (1, "state before")


class TestRecords:
    """With run directories: records narrow down the step, and the rest is repeated."""

    def test_replays_begin_at_the_nearest_common_checkpoint(self, tmp_path: Path) -> None:
        sides = make(tmp_path / "a"), make(tmp_path / "b", nudge=37)  # the batch of step 10
        for side in sides:
            run(side)
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        parting = found(*sides)
        assert (parting.step, parting.part, parting.start) == (10, "batch", 9)
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
        assert any(
            text == "the checkpoints part at step 12 (the same at 9)" for text in parting.records
        )

    def test_a_damaged_common_checkpoint_is_passed_over(self, tmp_path: Path) -> None:
        sides = make(tmp_path / "a"), make(tmp_path / "b", nudge=37)
        for side in sides:
            run(side)
        payload = tmp_path / "b" / "step-00000009" / "params.safetensors"
        payload.write_bytes(payload.read_bytes()[:-1] + b"\xff")
        with pytest.raises(errors.CheckpointCorruptError):
            verify(payload.parent)
        assert (found(*sides).step, found(*sides).start) == (10, 6)

    def test_digests_tell_the_step_at_once(self, tmp_path: Path) -> None:
        for name, nudge in (("a", None), ("b", 37)):
            run(make(tmp_path / name, nudge=nudge), Digests(tmp_path / name))
        record = by_digests(tmp_path / "a", tmp_path / "b")
        assert record is not None
        assert (record.step, record.after) == (10, 9)
        assert record.text.startswith("the digests part at step 10: batch, params")
        assert by_checkpoints(tmp_path / "a", tmp_path / "b").step == 12  # type: ignore[union-attr]
        assert by_logs(tmp_path / "a", tmp_path / "b").step >= 10  # type: ignore[union-attr]

    def test_listeners_and_bookkeeping_do_not_count(self, tmp_path: Path) -> None:
        run(make(tmp_path / "a"), Digests(tmp_path / "a"))
        run(make(tmp_path / "b"))
        assert records(tmp_path / "a", tmp_path / "b") == []
        assert ft.bisect(make(tmp_path / "a"), make(tmp_path / "b")) is None

    def test_runs_that_cannot_be_repeated_are_reported_as_such(self, tmp_path: Path) -> None:
        # The run was made with data that is not there any more.
        run(make(tmp_path / "a"))
        run(make(tmp_path / "b", nudge=37))
        with pytest.warns(errors.RecipeChangedWarning, match=r"data\.contents"):
            parting = found(make(tmp_path / "a"), make(tmp_path / "b"))
        assert parting.part == "records"
        assert 10 <= parting.step <= 12
        assert "they are the same, so it was neither the program nor the data" in str(parting)

    def test_a_fork_is_repeated_from_its_origin(self, tmp_path: Path) -> None:
        run(make(tmp_path / "a"))
        origin = tmp_path / "a" / "step-00000009"
        fork = make(tmp_path / "b", optimizer=ft.optim.AdamW(0.01, weight_decay=0.5))
        options = fork()
        with pytest.warns(errors.RecipeChangedWarning):
            ft.fit(options.pop("program"), options.pop("data"), resume=origin, **options)
        with pytest.warns(errors.RecipeChangedWarning):
            parting = found(make(tmp_path / "a"), fork)
        assert (parting.step, parting.part) == (10, "params")

    def test_runs_of_unequal_length_are_repeated_from_their_last_common_checkpoint(
        self, tmp_path: Path
    ) -> None:
        run(make(tmp_path / "a", until="9 steps"))
        run(make(tmp_path / "b"))
        parting = found(make(tmp_path / "a", until="9 steps"), make(tmp_path / "b"))
        assert (parting.step, parting.part, parting.start) == (10, "end", 9)


def test_a_run_that_ends_because_of_nan_is_traced_to_the_batch() -> None:
    def spoiled() -> dict[str, Any]:
        x, y = columns()
        x[SPOILED, 1] = torch.nan
        return {**make()(), "data": ft.data.Batches((x, y), SIZE, shuffle=False)}

    for sides in ((make(), spoiled), (spoiled, make())):
        parting = found(*sides)
        assert (parting.step, parting.part, parting.leaf) == (5, "batch", "batch.0")
        assert parting.differences[0].index == (1, 1)


def test_a_directory_without_a_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(errors.ConfigurationError, match=r"has no config.yaml"):
        ft.bisect(tmp_path, str(tmp_path))


def test_bisect_refuses_arguments_of_fit_that_are_not_in_a_function() -> None:
    arguments: Any = make()()
    with pytest.raises(errors.ConfigurationError, match="expected a function that returns"):
        ft.bisect(arguments, arguments)


def test_batches_of_arrays_and_mappings_are_compared() -> None:
    import numpy as np

    def side(value: float) -> dict[str, Any]:
        batch = {"x": np.full((2, 3), 1.0, np.float32), "name": "a"}
        other = {"x": np.full((2, 3), value, np.float32), "name": "a"}

        def of_array(model: nn.Module, batch: Any) -> Tensor:
            return model(torch.from_numpy(batch["x"])).square().mean()

        program = ft.program(lambda: nn.Linear(3, 2), of_array, ft.optim.SGD(lr=0.1))
        return {"program": program, "data": [batch, other], "until": "2 steps"}

    parting = found(lambda: side(1.0), lambda: side(2.0))
    assert (parting.step, parting.part, parting.leaf) == (2, "batch", "batch.x")
