"""What ``functrain train`` writes beside the checkpoints: configuration and curves."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from functrain.errors import ConfigChangedError, RunDirectoryError

FILE_NAME = "config.yaml"
# A run may be continued to another end, or elsewhere; anything else makes it another run.
MAY_CHANGE = ("fit.until", "threads", "directory", "name", "report")


def settle(directory: Path, plain: dict[str, Any]) -> None:
    """Write the resolved configuration, or check that the run here has the same.

    Args:
        directory: the run directory; made where it is missing.
        plain: the configuration as plain data.

    Raises:
        ConfigChangedError: the directory holds a run of another configuration.
        RunDirectoryError: it cannot be made, read or written.
    """
    path = directory / FILE_NAME
    try:
        if path.exists():
            _compare(directory, OmegaConf.to_container(OmegaConf.load(path)), plain)
        directory.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{FILE_NAME}.{os.getpid()}")
        beside.write_text(OmegaConf.to_yaml(plain))
        beside.replace(path)
    except OSError as error:
        raise RunDirectoryError(
            f"{directory} cannot be used as a run directory: {error}"
        ) from error


def _compare(directory: Path, before: Any, now: dict[str, Any]) -> None:
    old, new = dict(_flat(before)), dict(_flat(now))
    changed = [
        f"{key}: {old.get(key)!r} there, {new.get(key)!r} now"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and not key.startswith(MAY_CHANGE)
    ]
    if changed:
        shown = "; ".join(changed[:4]) + ("; ..." if len(changed) > 4 else "")
        raise ConfigChangedError(
            f"{directory} holds a run of another configuration ({shown}). Choose another "
            "directory=..., or remove that one."
        )


def _flat(node: Any, path: str = "") -> list[tuple[str, Any]]:
    if isinstance(node, dict):
        pairs = list(node.items())
    elif isinstance(node, list):
        pairs = list(enumerate(node))
    else:
        return [(path, node)]
    return [
        leaf for key, child in pairs for leaf in _flat(child, f"{path}.{key}" if path else str(key))
    ]
