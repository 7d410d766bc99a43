"""Whose log a file is: a run removes only rows that it wrote itself.

A hidden note beside a log, ``.metrics.jsonl.run``, names the run that wrote it by a digest. A run
that was killed before its first checkpoint begins again under the same digest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
from xxhash import xxh3_128_hexdigest

from functrain.checkpoint.storage.files import replace_file
from functrain.errors import LogError


@attrs.frozen
class Writer:
    """A run that writes logs.

    Attributes:
        run: a digest of its configuration, the same in any process.
        resumed: whether a checkpoint says that it wrote before, so that a note may be missing.
    """

    run: str
    resumed: bool = False

    @classmethod
    def of(cls, config: Mapping[str, Any], before: str | None = None) -> Writer:
        """Return the writer of a new run or a fork, or the one that a resumed run had ``before``.

        Example:
            >>> Writer.of({"fit": {}}, "d6f2"), Writer.of({"fit": {"parent": "a"}}, "d6f2").resumed
            (Writer(run='d6f2', resumed=True), False)
        """
        if before is not None and "parent" not in config.get("fit", ()):
            return cls(before, resumed=True)
        # Objects that are no plain data count by their class: their texts may hold an address.
        text = json.dumps(config, sort_keys=True, default=lambda value: type(value).__qualname__)
        return cls(xxh3_128_hexdigest(text.encode()))

    def take(self, log: Path, keeps: int) -> None:
        """Note that this run writes a log, of which it keeps the first bytes.

        Raises:
            LogError: it would remove what another run wrote.
        """
        note = log.with_name(f".{log.name}.run")
        owner = note.read_text() if note.exists() else self.run if self.resumed else None
        if owner != self.run and log.exists() and log.stat().st_size > keeps:
            raise LogError(
                f"{log} is not the log of this run: another run wrote it, or this one under other "
                "arguments, so it is not overwritten. Choose another path, or move the file away"
            )
        if owner != self.run or not note.exists():
            replace_file(note, self.run.encode())
