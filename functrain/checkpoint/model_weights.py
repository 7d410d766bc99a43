"""Load the weights of a model from a checkpoint or a plain file, and nothing else."""

from __future__ import annotations

import errno
import pickle
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from functrain.checkpoint.format.manifest import Manifest
from functrain.checkpoint.loading import is_intact
from functrain.checkpoint.manifest_file import locate, read_errors, read_manifest
from functrain.checkpoint.pruning import warn_skipped
from functrain.checkpoint.run_directory import list_steps, step_name
from functrain.checkpoint.selection import Weight, What, select_weights
from functrain.checkpoint.storage import reading
from functrain.errors import CheckpointCorruptError, ConfigurationError, NoCheckpointError

# The errors of torch for bytes that are not a pickle of tensors.
_UNREADABLE = (
    *(pickle.UnpicklingError, EOFError, RuntimeError, ValueError, KeyError, IndexError),
    *(TypeError, AttributeError, AssertionError, OverflowError),
)


def weights(
    path: str | Path,
    what: What = "params",
    *,
    program: str | None = None,
    device: str | torch.device = "cpu",
) -> dict[str, Tensor]:
    """Load weights by name, for ``program.init(params=...)`` or a module's ``load_state_dict``.

    Args:
        path: a run directory (its newest checkpoint that verifies), a checkpoint, a safetensors
            file, or a ``state_dict`` file from ``torch.save``; of the last, only tensors and plain
            containers are unpickled.
        what: ``"params"``, those that the program evaluates with; ``"trained"``, those that steps
            update, which differ under Schedule-Free and Lookahead; or ``"ema"``.
        program: the name of one of several programs of :func:`functrain.joint`, ``"generator"``;
            of one that is joint itself, ``"outer.inner"``.
        device: the device of the tensors.

    Returns:
        Parameters and persistent buffers, tied ones under all of their names, if ``fit`` recorded
        them; for a state saved without ``fit`` its parameters and all buffers.

    Raises:
        NoCheckpointError: the path does not exist.
        CheckpointCorruptError: it is damaged, or not a file of weights.
        ConfigurationError: it does not hold these weights.

    Example:
        >>> import functrain as ft, tempfile
        >>> loss = lambda model, batch: model(batch).square().mean()
        >>> program = ft.program(torch.nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.1))
        >>> place = ft.save(Path(tempfile.mkdtemp()) / "c", program.init())
        >>> fresh = program.init(params=weights(place))
        >>> fresh.counters.step
        0
    """
    place = locate(path)
    if place.is_dir():
        place = _checkpoint(place)
        manifest = read_manifest(place)
        return read_weights(place, manifest, select_weights(manifest, what, program), device)
    if not place.exists():
        raise NoCheckpointError(errno.ENOENT, f"there is no checkpoint and no file at {place}")
    if what != "params" or program is not None:
        asked = f"what={what!r}" if program is None else f"program={program!r}"
        raise ConfigurationError(f"{asked}: {place} is a plain file, which holds one kind")
    with read_errors(place):
        return _from_file(place, device)


def _checkpoint(place: Path) -> Path:
    """Return the path itself, or the newest checkpoint in a run directory that verifies."""
    steps = list_steps(place)
    for step in reversed(steps):
        path = place / step_name(step)
        if is_intact(path):
            return path
        warn_skipped(path, CheckpointCorruptError("it is damaged"))
    if steps:
        raise CheckpointCorruptError(f"every checkpoint in {place} is damaged")
    return place


def read_weights(
    place: Path, manifest: Manifest, chosen: Mapping[str, Weight], device: str | torch.device
) -> dict[str, Tensor]:
    """Read the weights of a checkpoint that were chosen; one tensor for all names of a weight."""
    places = {leaf.path: index for index, leaf in enumerate(manifest.leaves)}
    wanted = {places[leaf.path] for weight in chosen.values() for leaf in weight.sources}
    targets = dict.fromkeys(wanted, torch.device(device))
    with read_errors(place):
        found = reading.read(place, manifest.files, manifest.leaves, targets, wanted=wanted)
    values = {
        weight: weight.value(lambda leaf: found[places[leaf.path]]) for weight in chosen.values()
    }
    return {name: values[weight] for name, weight in chosen.items()}


def _from_file(place: Path, device: str | torch.device) -> dict[str, Tensor]:
    try:
        if place.suffix == ".safetensors":
            return dict(safetensors.torch.load_file(place, device=str(device)))
        found = torch.load(place, map_location=device, weights_only=True)
    except (SafetensorError, *_UNREADABLE) as error:
        # Leave out torch's advice to use weights_only=False, which runs code in the file.
        raise CheckpointCorruptError(
            f"{place} cannot be read as weights: it is no safetensors file and no state_dict that "
            f"loads without running code ({type(error).__name__})"
        ) from error
    if not isinstance(found, dict) or not all(isinstance(v, Tensor) for v in found.values()):
        from functrain.diagnosis.given_params import state_dicts

        nested = state_dicts(found) if isinstance(found, dict) else {}
        hint = f" (checkpoint = torch.load(...); weights may be {', '.join(nested.values())})"
        raise ConfigurationError(
            f"{place} holds a {type(found).__name__} that is no state_dict (names and tensors); "
            "load it with torch.load and give the weights in it to program.init(params=...)"
            f"{hint if nested else ''}"
        )
    return dict(found)
