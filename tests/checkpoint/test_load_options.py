"""Row 39: mismatches are reported at once, and only requested differences are allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest
import torch

from functrain import tree
from functrain.checkpoint import Anything, Checkpoints, load, save
from functrain.errors import (
    CheckpointCorruptError,
    CheckpointMismatchError,
    CheckpointTypeError,
    ConfigurationError,
    PartialLoadWarning,
)


@attrs.frozen(eq=False)
class State:
    params: dict[str, Any]
    moments: list[Any]
    step: int


def made(fill: float = 1.0) -> State:
    params = {f"encoder.{i}.weight": torch.full((i + 1, 2), fill) for i in range(3)}
    return State(params | {"head.bias": torch.full((2,), fill)}, [torch.full((2,), fill)] * 2, 7)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save(tmp_path / "c", made())


class TestOnly:
    def test_selected_leaves_without_like(self, saved: Path) -> None:
        (saved / "rest.safetensors").unlink()
        found = load(saved, only="params.*")
        assert tree.equal(found, {"params": made().params})

    def test_nodes_that_lost_leaves_become_dicts_and_others_stay(self, saved: Path) -> None:
        expected = {"moments": {1: made().moments[1]}, "step": 7}
        assert tree.equal(load(saved, only=["moments.1", "step"]), expected)
        assert type(load(saved, only="moments.*")["moments"]) is list

    def test_all_leaves_need_the_class(self, saved: Path) -> None:
        with pytest.raises(CheckpointTypeError, match="State"):
            load(saved, only="*")
        assert tree.equal(load(saved, only="*", types=[State]), made())

    def test_into_a_tree_whose_other_leaves_stay(self, saved: Path) -> None:
        like = made(5.0)
        found = load(saved, like=attrs.evolve(like, step=1), only="params.encoder.*")
        assert found.step == 1
        assert found.moments[0] is like.moments[0]
        assert found.params["head.bias"] is like.params["head.bias"]
        assert (found.params["encoder.2.weight"] == 1).all()

    def test_a_glob_without_matches(self, saved: Path) -> None:
        with pytest.raises(CheckpointMismatchError, match=r"weights\.\*: no leaf has a matching"):
            load(saved, only="weights.*")
        with pytest.raises(CheckpointMismatchError, match="nothing in the checkpoint"):
            load(saved, like=made(), only="weights.*")


class TestRename:
    def like(self) -> dict[str, Any]:
        params = {f"backbone.{i}.w": torch.zeros(i + 1, 2) for i in range(3)}
        return {"params": params | {"head.bias": torch.zeros(2)}}

    def test_by_pattern(self, saved: Path) -> None:
        rename = {"params.encoder.*.weight": "params.backbone.*.w"}
        found = load(saved, like=self.like(), rename=rename, only="params.*")
        assert list(found["params"]) == list(self.like()["params"])
        assert all((value == 1).all() for value in found["params"].values())

    def test_a_path_includes_everything_below_it(self, saved: Path) -> None:
        like = {"weights": {"head.bias": torch.zeros(2)}, "step": 0}
        with pytest.warns(PartialLoadWarning):
            found = load(saved, like=like, rename={"params": "weights"}, partial=True)
        assert (found["weights"]["head.bias"] == 1).all()
        assert found["step"] == 7

    def test_every_problem_is_reported_with_the_nearest_name(self, saved: Path) -> None:
        rename = {"params.encoded": "params.backbone", "moments.0": "step"}
        with pytest.raises(CheckpointMismatchError) as caught:
            load(saved, like=self.like(), rename=rename)
        text = str(caught.value)
        assert "rename: 'params.encoded' is not in the checkpoint (did you mean" in text
        assert "step: exists already, so nothing can be renamed to it" in text
        assert "params.backbone.0.w: missing in the checkpoint" in text
        assert "params.encoder.0.weight: unexpected, only in the checkpoint" in text

    def test_two_leaves_of_one_name(self, saved: Path) -> None:
        rename = {"params.encoder.*.weight": "params.w"}
        with pytest.raises(CheckpointMismatchError, match="gives several leaves the same name"):
            load(saved, like=self.like(), rename=rename, partial=True)

    def test_some_options_need_like(self, saved: Path) -> None:
        for options in ({"rename": {"a": "b"}}, {"cast": True}, {"partial": True}):
            with pytest.raises(ConfigurationError, match="give like="):
                load(saved, **options)


class TestCast:
    def test_only_when_asked_for(self, saved: Path) -> None:
        like = tree.map(lambda leaf: leaf.double() if torch.is_tensor(leaf) else leaf, made())
        with pytest.raises(CheckpointMismatchError, match="expected float64"):
            load(saved, like=like)
        found = load(saved, like=like, cast=True)
        assert found.params["head.bias"].dtype == torch.float64
        assert tree.equal(found.params["encoder.1.weight"], torch.ones(2, 2).double())

    @pytest.mark.parametrize("dtype", [torch.int64, torch.bool])
    def test_complex_and_fractional_parts_are_never_dropped(
        self, tmp_path: Path, dtype: torch.dtype
    ) -> None:
        path = save(tmp_path / "c", {"w": torch.ones(2)})
        with pytest.raises(CheckpointMismatchError, match=r"w: float32 cannot be cast to"):
            load(path, like={"w": torch.zeros(2, dtype=dtype)}, cast=True)

    def test_shapes_are_never_cast(self, tmp_path: Path) -> None:
        path = save(tmp_path / "c", {"w": torch.ones(2)})
        with pytest.raises(CheckpointMismatchError, match=r"w: expected shape \[3\]"):
            load(path, like={"w": torch.zeros(3)}, cast=True)


class TestPartial:
    def test_each_side_may_have_more(self, saved: Path) -> None:
        like = {"params": {"head.bias": torch.zeros(2), "head.scale": torch.full((2,), 9.0)}}
        with pytest.raises(CheckpointMismatchError, match=r"head\.scale: missing"):
            load(saved, like=like, cast=True)
        with pytest.warns(PartialLoadWarning) as caught:
            found = load(saved, like=like, partial=True)
        told = str(caught[0].message)
        assert "params.head.scale: not in the checkpoint, left as it is in like" in told
        assert "moments: only in the checkpoint, not loaded" in told
        assert "params.encoder.0.weight: only in the checkpoint, not loaded" in told
        assert found["params"]["head.bias"].tolist() == [1, 1]
        assert found["params"]["head.scale"] is like["params"]["head.scale"]

    def test_common_leaves_must_fit(self, saved: Path) -> None:
        like = {"params": {"head.bias": torch.zeros(3)}, "step": torch.zeros(())}
        with pytest.raises(CheckpointMismatchError) as caught:
            load(saved, like=like, partial=True)
        assert len(caught.value.problems) == 2

    def test_nothing_in_common_is_an_error(self, saved: Path) -> None:
        with pytest.raises(CheckpointMismatchError, match="nothing in the checkpoint"):
            load(saved, like={"other": torch.zeros(3)}, partial=True)

    def test_aliases_stay_aliases(self, tmp_path: Path) -> None:
        weight = torch.randn(3)
        path = save(tmp_path / "c", {"a": weight, "b": weight, "c": torch.ones(2)})
        with pytest.warns(PartialLoadWarning, match="c: only in the checkpoint"):
            found = load(path, like={"a": torch.zeros(3), "b": torch.zeros(3)}, partial=True)
        assert found["a"] is found["b"]

    def test_anything_stands_for_what_was_saved(self, saved: Path) -> None:
        with pytest.warns(PartialLoadWarning, match="new: not in the checkpoint"):
            found = load(saved, like={"moments": Anything(), "new": 3}, partial=True)
        assert tree.equal(found, {"moments": made().moments, "new": 3})


class TestMigrate:
    @staticmethod
    def older(value: dict[str, Any]) -> dict[str, Any]:
        stacked = torch.stack(value["moments"])
        return {"params": value["params"], "moments": [stacked], "step": value["step"] + 1}

    def test_into_the_classes_of_today(self, saved: Path) -> None:
        like = attrs.evolve(made(0.0), moments=[torch.zeros(2, 2)], step=0)
        found = load(saved, like=like, migrate=self.older)
        assert type(found) is State
        assert found.step == 8
        assert tree.equal(found.moments, [torch.ones(2, 2)])

    def test_alone(self, saved: Path) -> None:
        assert load(saved, migrate=self.older)["step"] == 8

    def test_the_result_of_migrate_must_fit(self, saved: Path) -> None:
        with pytest.raises(CheckpointMismatchError, match=r"moments\.1: missing"):
            load(saved, like=made(), migrate=self.older)

    def test_its_own_errors_are_the_users(self, saved: Path) -> None:
        with pytest.raises(KeyError, match="gone"):
            load(saved, migrate=lambda value: value["gone"])


class TestOddTrees:
    def test_ambiguous_paths_are_reported(self, tmp_path: Path) -> None:
        path = save(tmp_path / "c", {"a": {"b": 1}, "a.b": 2, "c": 3})
        with pytest.raises(CheckpointMismatchError, match=r"a\.b: 2 places in the checkpoint"):
            load(path, like={"a": {"b": 0}}, partial=True)
        with pytest.warns(PartialLoadWarning, match="a: only in the checkpoint"):
            assert load(path, like={"c": 0}, partial=True) == {"c": 3}
        with pytest.raises(CheckpointMismatchError, match=r"a\.b: 2 places in the checkpoint"):
            load(path, like={"x": 0}, rename={"a.b": "x"}, partial=True)

    def test_a_glob_without_matches_next_to_an_empty_dict(self, tmp_path: Path) -> None:
        path = save(tmp_path / "c", {"e": {}, "w": torch.ones(1)})
        with pytest.raises(CheckpointMismatchError, match="no leaf has a matching path"):
            load(path, only="nothing")
        assert load(path, only="e") == {"e": {}}

    def test_renaming_a_node_renames_everything_below_it(self, saved: Path) -> None:
        assert tree.equal(load(saved, only="params"), {"params": made().params})
        like = {"params": Anything(), "step": 0, "moments": Anything()}
        found = load(saved, like=like, only="params.head.*")
        assert tree.equal(found["params"], {"head.bias": made().params["head.bias"]})
        assert found["step"] == 0
        assert found["moments"] is like["moments"]

    def test_names_can_be_swapped(self, tmp_path: Path) -> None:
        path = save(tmp_path / "c", {"a": 1, "b": 2, "c": 3})
        rename = {"a": "b", "b": "c", "c": "a"}
        assert load(path, like={"a": 0, "b": 0, "c": 0}, rename=rename) == {"a": 3, "b": 1, "c": 2}

    def test_aliases_stay_aliases_when_cast(self, tmp_path: Path) -> None:
        weight = torch.ones(3)
        path = save(tmp_path / "c", {"a": weight, "b": weight})
        like = {"a": torch.zeros(3).double(), "b": torch.zeros(3).double()}
        found = load(path, like=like, cast=True)
        assert found["a"] is found["b"]
        assert found["a"].dtype == torch.float64

    def test_only_and_migrate_without_a_tree_to_fit(self, saved: Path) -> None:
        with pytest.raises(ConfigurationError, match="only and migrate together"):
            load(saved, only="params", migrate=lambda value: value)


@attrs.frozen(eq=False)
class Strict:
    """Looks at what it is made of."""

    count: int = attrs.field(converter=int, validator=attrs.validators.ge(1))
    weight: torch.Tensor = attrs.field(validator=attrs.validators.instance_of(torch.Tensor))


class TestClassesThatValidateTheirFields:
    def test_they_see_the_final_values_once(self, tmp_path: Path) -> None:
        path = save(tmp_path / "c", Strict(2, torch.ones(1)))
        like = Strict(1, torch.zeros(1))
        for options in ({}, {"partial": True}, {"cast": True}, {"migrate": lambda value: value}):
            found = load(path, like=like, **options)
            assert (found.count, float(found.weight)) == (2, 1.0)

    def test_errors_of_classes_are_not_damage(self, tmp_path: Path) -> None:
        value = Strict(2, torch.ones(1))
        object.__setattr__(value, "count", 0)
        store = Checkpoints(tmp_path)
        store.save(value, step=1)
        with pytest.raises(CheckpointTypeError, match="Strict does not take its saved fields"):
            store.restore(types=[Strict])


def test_damage_is_noticed_only_in_bytes_that_are_read(saved: Path) -> None:
    file = saved / "params.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert load(saved, only="moments.*")
    with pytest.raises(CheckpointCorruptError, match="params"):
        load(saved, only="params.head.bias")
    assert load(saved, only="params.head.bias", verify=False)


def test_a_sparse_leaf_is_one_leaf(tmp_path: Path) -> None:
    mask = torch.eye(3).to_sparse()
    path = save(tmp_path / "c", {"mask": mask, "w": torch.ones(2)})
    found = load(
        path,
        like={"gate": torch.zeros(3, 3).to_sparse(), "w": torch.zeros(2)},
        rename={"mask": "gate"},
    )
    assert torch.equal(found["gate"].to_dense(), torch.eye(3))
    assert torch.equal(load(path, only="mask")["mask"].to_dense(), torch.eye(3))
    with pytest.raises(
        CheckpointMismatchError, match="expected a tensor, the checkpoint has a spa"
    ):
        load(path, like={"mask": torch.zeros(3, 3)}, partial=True)
