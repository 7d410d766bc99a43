"""``functrain diff`` of checkpoints and of runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import orjson
import pytest
import torch

from functrain.checkpoint import Checkpoints, save

Run = Callable[..., Any]
BASE = {"w": torch.arange(4.0), "b": torch.zeros(2), "n": 1, "deep": {"x": (1, 2)}}


@attrs.frozen(eq=False)
class Mine:
    w: Any


def saved(directory: Path, name: str, tree: Any) -> Path:
    return save(directory / name, tree)


def changed(**leaves: Any) -> dict[str, Any]:
    return {**BASE, **leaves}


class TestCheckpoints:
    def test_equal_ones_are_0(self, functrain: Run, tmp_path: Path) -> None:
        tree = {"m": Mine(torch.ones(2)), "t": torch.ones(2, 3, 4, 5)}
        other = {**tree, "t": tree["t"].to(memory_format=torch.channels_last)}
        ended = functrain("diff", saved(tmp_path, "a", tree), saved(tmp_path, "b", other))
        assert (ended.code, ended.err) == (0, "")
        assert "the checkpoints are equal: 2 tensors, bit for bit" in ended.out

    def test_the_first_leaf_has_count_distance_and_ulps(
        self, functrain: Run, tmp_path: Path
    ) -> None:
        w = torch.nextafter(BASE["w"], torch.tensor(10.0))
        w[0] = 0.0
        ours, theirs = saved(tmp_path, "a", BASE), saved(tmp_path, "b", changed(w=w, n=2))
        ended = functrain("diff", ours, theirs)
        gap = float((w - BASE["w"]).double().max())
        assert ended.code == 1
        assert ended.out.splitlines() == [
            "2 differences",
            f"  w: value: 3 of 4 elements differ, at most by {gap:.4g} (1 ulp)",
            "  n: value: expected 1, got 2",
        ]
        document = functrain("diff", ours, theirs, "--json").json
        assert document["equal"] is False
        assert document["differences"] == [
            {
                "path": "w",
                "kind": "value",
                "detail": f"3 of 4 elements differ, at most by {gap:.4g} (1 ulp)",
                "elements": 4,
                "differ": 3,
                "max_abs": gap,
                "ulps": 1,
            },
            {
                "path": "n",
                "kind": "value",
                "detail": "expected 1, got 2",
                "elements": None,
                "differ": None,
                "max_abs": None,
                "ulps": None,
            },
        ]

    @pytest.mark.parametrize(
        ("other", "kind", "path"),
        [
            (changed(w=torch.arange(4)), "dtype", "w"),
            (changed(w=torch.arange(5.0)), "shape", "w"),
            (changed(w=[1]), "type", "w"),
            (changed(n=1.0), "type", "n"),
            (changed(n=True), "type", "n"),
            (changed(b=torch.tensor([0.0, -0.0])), "value", "b"),
            (changed(deep={"x": [1, 2]}), "type", "deep.x"),
            (changed(deep={"x": (1, 2, 3)}), "unexpected", "deep.x.2"),
            (changed(deep={}), "missing", "deep.x"),
            (changed(deep=None), "type", "deep"),
            (changed(more={"y": {"z": 1}}), "unexpected", "more"),
        ],
        ids=str,
    )
    def test_each_kind_of_difference_once_at_its_place(
        self, functrain: Run, tmp_path: Path, other: Any, kind: str, path: str
    ) -> None:
        places = saved(tmp_path, "a", BASE), saved(tmp_path, "b", other)
        found = functrain("diff", *places, "--json").json["differences"]
        assert [(each["kind"], each["path"]) for each in found] == [(kind, path)]
        assert functrain("diff", *places).code == functrain("diff", *places[::-1]).code == 1

    def test_order_of_keys_does_not_count(self, functrain: Run, tmp_path: Path) -> None:
        turned = dict(reversed(BASE.items()))
        assert functrain("diff", saved(tmp_path, "a", BASE), saved(tmp_path, "b", turned)).code == 0

    def test_a_sparse_tensor_of_another_size(self, functrain: Run, tmp_path: Path) -> None:
        index, value = torch.tensor([[0, 1]]), torch.ones(2)
        ours, theirs = (
            saved(tmp_path, str(size), {"s": torch.sparse_coo_tensor(index, value, (size,))})
            for size in (2, 3)
        )
        (found,) = functrain("diff", ours, theirs, "--json").json["differences"]
        assert found["path"] == "s"
        assert functrain("diff", ours, ours).code == 0

    def test_unknown_classes_differ_by_name(self, functrain: Run, tmp_path: Path) -> None:
        ours = saved(tmp_path, "a", {"m": Mine(torch.ones(2))})
        theirs = saved(tmp_path, "b", {"m": {"w": torch.ones(2)}})
        (found,) = functrain("diff", ours, theirs, "--json").json["differences"]
        assert found["path"] == "m"
        assert found["detail"].endswith("Mine, got dict")

    def test_damage_is_an_error_and_not_a_difference(self, functrain: Run, tmp_path: Path) -> None:
        ours, theirs = saved(tmp_path, "a", BASE), saved(tmp_path, "b", BASE)
        payload = theirs / "rest.safetensors"
        payload.write_bytes(payload.read_bytes()[:-1] + b"\xff")
        ended = functrain("diff", ours, theirs)
        assert ended.refuses("rest.safetensors")


class TestRuns:
    def run(self, directory: Path, parts_at: int = 99) -> Path:
        store = Checkpoints(directory)
        rows = []
        for step in range(1, 7):
            value = float(step) if step < parts_at else -1.0
            rows.append(orjson.dumps({"step": step, "loss": value}))
            if step % 2 == 0:
                store.save({"w": torch.full((3,), value)}, step=step)
        (directory / "metrics.jsonl").write_bytes(b"\n".join(rows) + b"\n")
        return directory

    def test_equal_runs(self, functrain: Run, tmp_path: Path) -> None:
        ended = functrain("diff", self.run(tmp_path / "a"), self.run(tmp_path / "b"))
        assert ended.code == 0
        assert "the runs are equal: state and log of 6 steps, bit for bit" in ended.out

    def test_the_first_step_at_which_logs_and_checkpoints_differ(
        self, functrain: Run, tmp_path: Path
    ) -> None:
        ours, theirs = self.run(tmp_path / "a"), self.run(tmp_path / "b", parts_at=3)
        ended = functrain("diff", ours, theirs)
        assert ended.code == 1
        assert "the logs part at step 3: loss is 3 and -1" in ended.out
        assert "the checkpoints part at step 4, of those both runs have" in ended.out
        document = functrain("diff", ours, theirs, "--json").json
        assert (document["logs_part_at"], document["checkpoints_part_at"]) == (3, 4)
        assert functrain("diff", f"{ours}@2", f"{theirs}@2").code == 0
        assert functrain("diff", f"{ours}@2", f"{ours}@4").code == 1

    def test_only_the_logs_may_differ(self, functrain: Run, tmp_path: Path) -> None:
        ours, theirs = self.run(tmp_path / "a"), self.run(tmp_path / "b")
        with open(theirs / "metrics.jsonl", "ab") as file:
            file.write(b'{"step":7,"loss":1.0}\n')
        ended = functrain("diff", ours, theirs, "--json")
        assert ended.code == 1
        assert ended.json["differences"] == []
        assert ended.json["logs"] == "the logs have 6 and 7 steps"
        assert ended.json["logs_part_at"] == 7


DIGITS = (
    *("model.width=4", "data.augment=false", "data.batch_size=256", "threads=1", "eval_data=null"),
    *("fit.until=9 steps", "fit.save_every=3 steps", "early_stop=null", "checkpoints.keep_last=9"),
)


@pytest.mark.row(54)
@pytest.mark.slow
class TestReplay:
    """Runs of ``functrain train`` are made again from their own configurations."""

    @pytest.fixture
    def runs(self, functrain: Run, tmp_path: Path) -> list[Path]:
        places = [tmp_path / "a", tmp_path / "b"]
        for place, schedule in zip(places, ("WarmupCosine", "WarmupLinear"), strict=True):
            target = f"schedule._target_=functrain.schedules.{schedule}"
            digests = f"listeners=[{{_target_: functrain.listeners.Digests, directory: {place}}}]"
            options = (*DIGITS, target, "schedule.warmup_proportion=0.5", digests)
            ended = functrain("train", "digits", *options, f"directory={place}")
            assert ended.code == 0, ended.err
        return places

    def test_the_first_step_and_leaf_from_the_nearest_checkpoint(
        self, functrain: Run, runs: list[Path]
    ) -> None:
        before = {path: path.stat().st_mtime_ns for run in runs for path in run.rglob("*")}
        ended = functrain("diff", *runs, "--replay")
        assert ended.code == 1
        text = " ".join(ended.out.split())
        step = int(text.split("the digests part at step ")[1].split(":")[0])
        assert f"repeated from step {(step - 1) // 3 * 3}, part at step {step}, at the lr" in text
        assert "the schedule gave another learning rate" in text
        assert "first lr: 1 of 1 elements differ" in text
        document = functrain("diff", *runs, "--replay", "--json").json
        assert document["digests_part_at"] == step
        assert (document["replay"]["step"], document["replay"]["part"]) == (step, "lr")
        assert document["replay"]["index"] == []
        assert document["replay"]["values"][0] != document["replay"]["values"][1]
        assert document["replay"]["ulps"] > 0
        assert {path: path.stat().st_mtime_ns for run in runs for path in run.rglob("*")} == before

    def test_a_run_that_cannot_be_replayed_is_one_line(
        self, functrain: Run, runs: list[Path], tmp_path: Path
    ) -> None:
        ended = functrain("diff", f"{runs[0]}@3", f"{runs[0]}@6", "--replay")
        assert ended.refuses("name two runs")
        assert functrain("diff", runs[0], runs[0], "--replay").code == 0
        (runs[1] / "config.yaml").unlink()
        assert functrain("diff", *runs, "--replay").refuses("has no config.yaml")
