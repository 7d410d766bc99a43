"""The command line in this process: what it prints, and its exit code."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest
from xxhash import xxh3_128_hexdigest

from functrain.cli import main

SEAL = b',"digest":"'


class Ended(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return orjson.loads(self.out)

    def refuses(self, *parts: str) -> bool:
        """Check that the command failed with one line that has these parts, and did nothing."""
        assert (self.code, self.out) == (2, "")
        assert all(part in self.err for part in parts), self.err
        assert self.err.count("\n") == 1, self.err
        return True


def exit_code() -> int:
    try:
        main()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0
    return 0


@pytest.fixture
def functrain(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Ended]:
    def run(*arguments: object, width: int = 80) -> Ended:
        monkeypatch.setattr(sys, "argv", ["functrain", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", str(width))
        capsys.readouterr()
        with warnings.catch_warnings():
            warnings.simplefilter("always")  # as in a process of its own
            code = exit_code()
        return Ended(code, *capsys.readouterr())

    return run


@pytest.fixture
def rewrite() -> Callable[[Path, Callable[[dict[str, Any]], object]], None]:
    """Change the manifest of a checkpoint, and seal it again as its writer would have."""

    def change(checkpoint: Path, edit: Callable[[dict[str, Any]], object]) -> None:
        path = checkpoint / "manifest.json"
        fields = orjson.loads(path.read_bytes())
        del fields["digest"]
        edit(fields)
        body = orjson.dumps(fields)[:-1]
        path.write_bytes(body + SEAL + xxh3_128_hexdigest(body).encode() + b'"}\n')

    return change
