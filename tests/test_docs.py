"""What the documentation shows works."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import torch

import functrain as ft

FORMAT = Path(__file__).parent.parent / "docs" / "checkpoint-format.md"


def test_a_checkpoint_is_read_without_functrain(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", FORMAT.read_text(), re.DOTALL)
    (tmp_path / "reader.py").write_text(blocks[-1])
    path = ft.save(tmp_path / "c", {"params": {"w": torch.ones(3), "b": torch.zeros(2)}}, step=7)

    def ended() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(tmp_path / "reader.py"), str(path)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert ended().stdout == "7 ['b', 'w']\n"
    file = path / "params.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\1")
    assert "params.b is damaged" in ended().stderr or "params.w is damaged" in ended().stderr


def test_every_tag_and_field_of_the_format_is_on_its_page(tmp_path: Path) -> None:
    from functrain.checkpoint.format.manifest import parse
    from functrain.checkpoint.format.scalars import _DECODERS
    from functrain.checkpoint.format.structure import _CLASSES, _PLAIN_KINDS, COMPOSITES

    text = FORMAT.read_text()
    kinds = {*_CLASSES, *_PLAIN_KINDS, "sparse_coo", "array", "generator", "subclass", "enum"} - {
        "list"
    }
    for tag in (*_DECODERS, *(f"${kind}" for kind in kinds)):
        assert tag in text, tag
    for kind in COMPOSITES:
        assert kind.removeprefix("sparse_") in text, kind
    path = ft.save(tmp_path / "c", {"w": torch.ones(1), "turned": torch.ones(2, 3).t()}, step=1)
    data = (path / "manifest.json").read_bytes()
    assert parse(data).step == 1
    for name in set(re.findall(rb'"(\w+)":', data)):
        assert f"`{name.decode()}`" in text or name in (
            b"functrain",
            b"torch",
            b"python",
            b"turned",
            b"w",
        ), name
