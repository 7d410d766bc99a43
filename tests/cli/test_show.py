"""``functrain show``: any checkpoint, of any classes, dtypes and damage."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import attrs
import pytest
import torch

from functrain.checkpoint import Checkpoints, load, save
from functrain.checkpoint.format.dtypes import BY_NAME
from functrain.errors import CheckpointTypeError

Run = Callable[..., Any]


class Color(Enum):
    RED = "red"


class Point(NamedTuple):
    x: Any
    y: Any


@attrs.frozen(eq=False)
class Record:
    weight: Any
    color: Any


def test_the_tree_of_classes_that_are_not_known(functrain: Run, tmp_path: Path) -> None:
    weight = torch.ones(2, 3)
    tree = {"r": Record(weight, Color.RED), "p": Point(weight, (1, 2.0, None)), "big": 1 << 70}
    place = save(tmp_path / "x", tree, info={"recipe": {"lr": 0.1}})
    with pytest.raises(CheckpointTypeError):
        load(place)
    out = functrain("show", place).out
    lines = [line.split() for line in out.splitlines()]
    assert ["r", "Record"] in lines
    assert ["weight", "f32[2,3]", "24", "B"] in lines
    assert ["x", "f32[2,3]", "24", "B", "same", "memory", "as", "r.weight"] in lines
    assert ["color", "\"Color('red')\""] in lines
    assert ["big", str(1 << 70)] in lines
    assert "recipe: lr 0.1" in out
    document = functrain("show", place, "--json").json
    by_path = {entry["path"]: entry for entry in document["entries"]}
    assert by_path["r"]["class"].endswith("Record")
    assert by_path["p.x"]["alias_of"] == "r.weight"
    assert by_path["p.y.1"] == {
        "path": "p.y.1",
        "keys": ["p", "y", 1],
        "scalar": "float",
        "value": 2.0,
    }
    assert by_path["big"]["value"] == str(1 << 70)


@pytest.mark.parametrize("dtype", BY_NAME.values(), ids=str)
def test_any_dtype_with_statistics(functrain: Run, tmp_path: Path, dtype: torch.dtype) -> None:
    some = torch.zeros(4 * dtype.itemsize, dtype=torch.uint8).view(dtype)
    single = torch.zeros(dtype.itemsize, dtype=torch.uint8).view(dtype)[0]
    place = save(tmp_path / "x", {"some": some, "single": single, "none": some[:0]})
    ended = functrain("show", place, "--stats", "--json")
    assert ended.code == 0
    by_path = {entry["path"]: entry for entry in ended.json["entries"]}
    assert by_path["some"]["dtype"] == str(dtype).removeprefix("torch.")
    if dtype.is_floating_point and "float4" not in str(dtype):
        expected = float(some.double()[0])
        assert by_path["some"]["statistics"]["min"] == expected
        assert by_path["single"]["value"] == pytest.approx(expected)
    assert functrain("show", place, "--stats").code == 0


def test_statistics_count_what_is_not_finite(functrain: Run, tmp_path: Path) -> None:
    values = torch.tensor([1.0, 3.0, float("nan"), float("inf")])
    place = save(tmp_path / "x", {"w": values, "v": values})
    document = functrain("show", place, "--stats", "--json").json
    (found,) = [e["statistics"] for e in document["entries"] if "statistics" in e]
    expected = {"min": 1.0, "max": 3.0, "mean": 2.0, "std": 1.0, "nan": 1, "inf": 1}
    assert found == expected
    assert "1 NaN, 1 Inf" in functrain("show", place, "--stats").out


def test_strides_do_not_mix_up_statistics(functrain: Run, tmp_path: Path) -> None:
    weight = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    place = save(tmp_path / "x", {"w": weight})
    document = functrain("show", place, "--stats", "--json").json
    assert document["entries"][1]["statistics"]["max"] == float(weight.max())


def test_only_shows_what_matches_and_what_is_above(functrain: Run, tmp_path: Path) -> None:
    tree = {"train": {"params": {"a.w": torch.ones(2)}, "step": 3}, "loop": {"x": 1}}
    place = save(tmp_path / "x", tree)
    found = functrain("show", place, "--only", "train.params.*", "--json").json["entries"]
    assert [entry["path"] for entry in found] == [
        *("(root)", "train", "train.params", "train.params.a.w")
    ]
    ended = functrain("show", place, "--only", "params.*")
    assert ended.refuses("no leaf matches params.*; a path is, for example, train.params.a.w")


def test_many_scalars_are_cut_in_the_table_only(functrain: Run, tmp_path: Path) -> None:
    place = save(tmp_path / "x", {"many": list(range(100)), "last": 7})
    out = functrain("show", place).out
    assert "84 more scalars" in out
    assert len(out.splitlines()) < 30
    assert "last" in out
    assert len(functrain("show", place, "--json").json["entries"]) == 103


def test_a_tree_that_is_one_leaf_or_empty(functrain: Run, tmp_path: Path) -> None:
    assert "f32[2]" in functrain("show", save(tmp_path / "x", torch.ones(2))).out
    assert "dict, empty" in functrain("show", save(tmp_path / "y", {})).out


class TestChoice:
    @pytest.fixture
    def run(self, tmp_path: Path) -> Path:
        store = Checkpoints(tmp_path / "run")
        for step, loss in ((1, 0.1), (2, 0.3), (3, 0.2)):
            store.save({"w": torch.full((2,), step)}, step=step, metrics={"loss": loss})
        return tmp_path / "run"

    def test_newest_best_and_by_step(self, functrain: Run, run: Path) -> None:
        def step(*arguments: object) -> int:
            return functrain("show", "--json", *arguments).json["step"]

        assert step(run) == 3
        assert step(run, "--best") == step(f"{run}@best") == 1
        assert step(run, "--step", 2) == step(f"{run}@2") == step(run / "step-00000002") == 2

    def test_a_damaged_newest_checkpoint_is_skipped_with_a_warning(
        self, functrain: Run, run: Path
    ) -> None:
        payload = run / "step-00000003" / "rest.safetensors"
        payload.write_bytes(payload.read_bytes()[:-1])
        ended = functrain("show", run, "--json")
        assert ended.json["step"] == 2
        assert "skipped" in ended.err
        # Asked for by its step it is shown, as far as that needs no payload.
        assert functrain("show", run, "--step", 3).code == 0
        refused = functrain("show", run, "--step", 3, "--stats")
        assert refused.refuses("rest.safetensors")

    def test_statistics_are_not_shown_of_a_checkpoint_damaged_elsewhere(
        self, functrain: Run, tmp_path: Path
    ) -> None:
        place = save(tmp_path / "x", {"params": torch.ones(2), "ema": torch.ones(2)})
        (place / "ema.safetensors").unlink()
        ended = functrain("show", place, "--stats", "--only", "params")
        assert ended.refuses("ema.safetensors is missing")

    def test_a_missing_checkpoint_is_an_error(
        self, functrain: Run, run: Path, tmp_path: Path
    ) -> None:
        for arguments, message in (
            ((run, "--step", 5), "no checkpoint of step 5; the nearest is of step 3"),
            ((run, "--best", "--monitor", "f1"), "no checkpoint in"),
            ((run / "step-00000002", "--best"), "--step and --best choose in a run"),
            ((tmp_path,), "there is no run with checkpoints in"),
            ((f"{tmp_path}/nowhere@3",), "there is no run with checkpoints in"),
        ):
            assert functrain("show", *arguments).refuses(message)


@pytest.mark.parametrize(
    "structure",
    [
        {"w": {"$tensor": 7}},
        {"w": {"$tensor": -1}},
        {"w": {"$tensor": "0"}},
        {"$tuple": 3},
        {"$dict": [[1]]},
        {"$attrs": 3, "fields": {}},
    ],
    ids=str,
)
def test_an_invalid_structure_is_damage(
    functrain: Run, tmp_path: Path, rewrite: Any, structure: Any
) -> None:
    place = save(tmp_path / "x", {"w": torch.ones(2)})
    rewrite(place, lambda fields: fields.update(structure=structure))
    ended = functrain("show", place)
    assert ended.code == 2
    assert "malformed" in ended.err or "damaged" in ended.err


def test_a_node_of_a_later_version_is_walked_for_its_tensors(
    functrain: Run, tmp_path: Path, rewrite: Any
) -> None:
    place = save(tmp_path / "x", {"s": [torch.ones(2), torch.ones(3)]})
    later = {"s": {"$sparse": "csr", "index": {"$tensor": 0}, "values": {"$tensor": 1}}}
    rewrite(place, lambda fields: fields.update(structure=later))
    found = functrain("show", place, "--json").json["entries"]
    assert [entry["path"] for entry in found] == ["(root)", "s", "s.index", "s.values"]
