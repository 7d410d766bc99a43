"""The README's program runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"


def test_python_blocks_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, str(README), "exec"), {"__name__": "readme"})
    assert "Run(reason='max_epochs', step=160" in capsys.readouterr().out
    assert (tmp_path / "runs" / "first" / "metrics.jsonl").exists()


def test_tests_it_names_exist() -> None:
    text, root = README.read_text(), README.parent
    for path in re.findall(r"`((?:tests|property_tests|functrain)/[\w/.]*)", text):
        assert (root / path.split("::")[0]).exists(), path
