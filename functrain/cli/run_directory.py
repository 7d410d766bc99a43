"""The configuration that ``functrain train`` writes to a run directory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import yaml
from omegaconf import OmegaConf

from functrain.checkpoint.storage.files import replace_file
from functrain.config import Loaded, import_folders
from functrain.config.yaml_file import parse_value
from functrain.errors import RunChangedError, RunDirectoryError
from functrain.training import events
from functrain.view.run_checkpoints import CONFIG_NAME

# A resumed run may change its end, its monitor or its place. Any other change is an error.
MAY_CHANGE = (
    *("fit.until", "fit.resume", "threads", "device", "directory", "name", "import_from"),
    *("fit.schedule_end", "fit.sanity_batches", "early_stop"),
    *("checkpoints.monitor", "checkpoints.mode", "seeds", "report", "generate", "placement"),
)


@attrs.frozen
class ConfigurationFile:
    """A listener that writes the resolved configuration of a run once there is something to train.

    Args:
        directory: the run directory.
        plain: the configuration.

    Raises:
        RunChangedError: the directory has another one.
    """

    directory: Path
    plain: dict[str, Any]

    def __attrs_post_init__(self) -> None:
        self._read_before()

    def on_train_begin(self, event: events.TrainBegin) -> None:
        """Write the file, unless the run has ended before."""
        if event.ended is None:
            self.write()

    def write(self) -> None:
        """Write the file, if the directory has no equal one."""
        if self._read_before() != self.plain:
            with _usable(self.directory):
                data = OmegaConf.to_yaml(self.plain).encode()
                replace_file(self.directory / CONFIG_NAME, data)

    def _read_before(self) -> Any:
        path = self.directory / CONFIG_NAME
        with _usable(self.directory):
            before = _read(path) if path.exists() else None
        if before is not None:
            _compare(self.directory, before, self.plain)
        return before


@contextlib.contextmanager
def _usable(directory: Path) -> Iterator[None]:
    try:
        yield
    except RunDirectoryError:
        raise
    except OSError as error:
        raise RunDirectoryError(
            f"{directory} cannot be used as a run directory: {error}"
        ) from error


def to_write(loaded: Loaded, plain: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration to write, with the folders of its modules."""
    # If the file was loaded from the run directory, that folder has no modules.
    own = Path(loaded.config.directory).resolve()
    folders = [str(folder) for folder in import_folders(loaded) if folder != own]
    return {**plain, "import_from": folders} if folders else plain


def _read(path: Path) -> Any:
    try:
        plain = parse_value(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        plain = " ".join(str(error).split())
    if isinstance(plain, dict) and plain:
        return plain
    raise RunDirectoryError(
        f"{path} is damaged: it is not a configuration ({plain or 'nothing'}). Remove that file "
        "to continue the run with the present configuration."
    )


def _compare(directory: Path, before: Any, now: dict[str, Any]) -> None:
    old, new = dict(flat(before)), dict(flat(now))
    changed = [
        f"{key}: {_shown(old, key)} there, {_shown(new, key)} now"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and not key.startswith(MAY_CHANGE)
    ]
    if changed:
        shown = "; ".join(changed[:4]) + ("; ..." if len(changed) > 4 else "")
        raise RunChangedError(
            f"{directory} holds a run of another configuration ({shown}). Choose another "
            "directory=..., or remove that one."
        )


def _shown(flat: dict[str, Any], key: str) -> str:
    return repr(flat[key]) if key in flat else "not set"


def flat(node: Any, path: str = "") -> list[tuple[str, Any]]:
    """Return every value below a node with its dotted key."""
    if isinstance(node, dict):
        pairs = list(node.items())
    elif isinstance(node, list):
        pairs = list(enumerate(node))
    else:
        return [(path, node)]
    return [
        leaf for key, child in pairs for leaf in flat(child, f"{path}.{key}" if path else str(key))
    ]
