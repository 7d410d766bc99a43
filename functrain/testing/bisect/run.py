"""One of two runs that ``bisect`` compares: how to run it again and where it was recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import attrs

from functrain.checkpoint import Checkpoints
from functrain.errors import ConfigurationError

# Returns new arguments of ``fit`` at each call: program, data, until, ...
Make: TypeAlias = Callable[[], Mapping[str, Any]]


@attrs.frozen(eq=False)
class Side:
    """A run: its arguments of ``fit``, and its run directory, if it had one."""

    make: Make
    directory: Path | None

    @classmethod
    def of(cls, make: Make) -> Side:
        """Read the run directory from the arguments of the run."""
        if not callable(make):
            raise ConfigurationError(
                f"expected a function that returns the arguments of fit, got {make!r}: call "
                "functrain.bisect with functions that return the arguments of fit, "
                "dict(program=..., data=..., until=..., directory=...), or with directories of "
                "functrain train"
            )
        given = make().get("directory")
        if isinstance(given, Checkpoints):
            return cls(make, given.directory)
        return cls(make, None if given is None else Path(given))

    @property
    def recorded(self) -> bool:
        """Whether the run directory exists."""
        return self.directory is not None and self.directory.is_dir()
