"""``_target_`` and import paths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import functrain as ft
from functrain.config.targets import imported, instantiated
from functrain.errors import ConfigError


class TestTargets:
    def test_partial_returns_the_function(self) -> None:
        node = {
            "_target_": "torch.nn.functional.cross_entropy",
            "_partial_": True,
            "reduction": "sum",
        }
        assert instantiated(node, "loss").keywords == {"reduction": "sum"}

    def test_a_class_can_be_an_argument(self) -> None:
        import torch

        cls = {"_target_": "functrain.config.imported", "path": "torch.optim.RMSprop"}
        node = {"_target_": "functrain.optim.from_torch", "cls": cls, "lr": 0.1}
        expected = ft.optim.from_torch(torch.optim.RMSprop, lr=0.1)
        assert instantiated(node, "optimizer") == expected

    def test_nested_targets_are_created_first(self) -> None:
        node: Any = {
            "_target_": "functrain.optim.AdamW",
            "lr": {"_target_": "functrain.schedules.Cosine", "lr": 0.1, "steps": 5},
        }
        schedule = ft.schedules.Cosine(lr=0.1, steps=5)
        assert instantiated(node, "optimizer") == ft.optim.AdamW(lr=schedule)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("import not_there_at_all\n", "not_there_at_all"),
            ("def f(:\n", "SyntaxError: invalid syntax"),
            ("\nundefined\n", r"NameError: .*fails_inside_.\.py, line 2"),
        ],
    )
    def test_a_failing_import_shows_its_error(
        self, text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        name = f"fails_inside_{len(message) % 10}"
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.syspath_prepend(str(tmp_path))
        with pytest.raises(ConfigError, match=rf"importing {name} failed: .*{message}"):
            imported(f"{name}.thing", "loss")

    def test_options_that_only_hydra_reads_are_accepted(self) -> None:
        node = {"_target_": "builtins.dict", "_convert_": "all", "a": [1]}
        assert instantiated(node, "data") == {"a": [1]}
