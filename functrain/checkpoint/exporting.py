"""Export the weights of a checkpoint to one safetensors or ``state_dict`` file."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from functrain.checkpoint.format.dtypes import dtype_name, safetensors_entry
from functrain.checkpoint.format.layout import safetensors_header
from functrain.checkpoint.format.manifest import MANIFEST
from functrain.checkpoint.format.tensor_bytes import memory, on_host
from functrain.checkpoint.loading import verify
from functrain.checkpoint.model_weights import read_weights
from functrain.checkpoint.selection import What, select_weights
from functrain.checkpoint.storage.commit import present
from functrain.checkpoint.storage.files import (
    created,
    make_directories,
    sync_directory,
    system_errors,
)
from functrain.checkpoint.storage.writing import create_in_blocks
from functrain.errors import (
    CheckpointExistsError,
    CheckpointWriteError,
    ConfigurationError,
)
from functrain.errors.paths import absolute

Format: TypeAlias = Literal["safetensors", "state_dict"]
_FORMATS: dict[str, Format] = {
    ".safetensors": "safetensors",
    ".pt": "state_dict",
    ".pth": "state_dict",
    ".bin": "state_dict",
}


def export(
    path: str | Path,
    out: str | Path,
    what: What = "params",
    format: Format | None = None,
    overwrite: bool = False,
    program: str | None = None,
) -> Path:
    """Write the weights of a checkpoint as a safetensors file or a torch ``state_dict``.

    The whole checkpoint is verified first; the file appears wholly or not at all, and is durable
    when this returns. Names that share memory become copies in a safetensors file, which cannot
    say that they are the same, and one tensor in a ``state_dict``.

    Args:
        path: the checkpoint's directory.
        out: the file to make; directories above it are made too.
        what: ``"params"``: parameters, as the program evaluates them, and persistent buffers by
            module path, for ``load_state_dict``. ``"trained"``: the same with parameters as steps
            update them, which differ under Schedule-Free and Lookahead. ``"ema"``: with
            averaged parameters where there is an average. ``"all"``: every tensor by its path.
        format: by default what the suffix of ``out`` says: ``"safetensors"`` for
            ``.safetensors``, ``"state_dict"`` for ``.pt``, ``.pth`` and ``.bin``.
        overwrite: replace an existing file at ``out``.
        program: the name of one of several programs of :func:`functrain.joint`.

    Returns:
        The absolute path of the file.

    Raises:
        ConfigurationError: the suffix names no format, the checkpoint has no such weights, or the
            format cannot hold them.
        CheckpointExistsError: ``out`` exists and may not be replaced.
        CheckpointWriteError: the file could not be written; nothing is left behind.
        The errors of :func:`functrain.checkpoint.verify`.

    Example:
        >>> import tempfile
        >>> from functrain.checkpoint import save
        >>> from safetensors.torch import load_file
        >>> place = Path(tempfile.mkdtemp())
        >>> saved = save(place / "state", {"params": {"w": torch.ones(2)}, "step": 7})
        >>> load_file(export(saved, place / "weights.safetensors"))
        {'w': tensor([1., 1.])}
    """
    final = absolute(out)
    _may_be_made(final, overwrite)
    as_torch = _format(final, format) == "state_dict"
    manifest = verify(path)
    chosen = select_weights(manifest, what, program)
    tensors = read_weights(present(absolute(path)), manifest, chosen, "cpu")
    if not as_torch:
        _check_fits_safetensors(tensors)
    write = _write_state_dict if as_torch else _write_safetensors
    with system_errors(final, CheckpointWriteError):
        _publish(final, partial(write, tensors), overwrite)
    return final


def _format(out: Path, format: Format | None) -> Format:
    """Return the format that was asked for, or the one that the suffix names."""
    chosen = _FORMATS.get(out.suffix.lower()) if format is None else format
    if chosen in ("safetensors", "state_dict"):
        return chosen
    if format is not None:
        raise ConfigurationError(f"format={format!r}: expected 'safetensors' or 'state_dict'")
    raise ConfigurationError(
        f"{out.name}: expected a name that ends in {', '.join(_FORMATS)}, got "
        f"{out.suffix or 'no suffix'!r}. Weights are written as safetensors or as a torch "
        "state_dict; choose such a name, or say which by format='safetensors' or "
        "format='state_dict' (on the command line: --format)"
    )


def _may_be_made(final: Path, overwrite: bool) -> None:
    if (final.parent / MANIFEST).exists():
        raise _exists(f"{final.parent} is a checkpoint, which is never changed; choose another")
    if final.is_dir():
        raise _exists(f"{final} is a directory; name a file")
    if not overwrite and os.path.lexists(final):
        raise _exists(
            f"{final} exists; overwrite=True (on the command line: --overwrite) replaces it"
        )


def _exists(problem: str) -> CheckpointExistsError:
    return CheckpointExistsError(errno.EEXIST, problem)


def _publish(final: Path, write: Callable[[Path], None], overwrite: bool) -> None:
    make_directories(final.parent)
    draft = final.parent / f".{final.name}.{os.getpid()}.{secrets.token_hex(8)}.writing"
    try:
        write(draft)
        _rename(draft, final, overwrite)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise
    sync_directory(final.parent)


def _rename(draft: Path, final: Path, overwrite: bool) -> None:
    if not overwrite:
        try:
            os.link(draft, final)  # unlike renaming, this replaces nothing
        except OSError:  # the name is taken by now, or the file system has no links
            _may_be_made(final, overwrite)
        else:
            os.unlink(draft)
            return
    os.rename(draft, final)


def _check_fits_safetensors(tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if safetensors_entry(tensor.dtype, tensor.shape)[1] != [*tensor.shape]:
            raise ConfigurationError(
                f"safetensors files have no dtype {dtype_name(tensor.dtype)}, which {name} is of; "
                "take format='state_dict'"
            )
        if name == "__metadata__":
            raise ConfigurationError("a safetensors file cannot hold a tensor called __metadata__")


def _write_safetensors(tensors: Mapping[str, Tensor], draft: Path) -> None:
    in_order = sorted(tensors.items(), key=lambda item: -item[1].element_size())
    entries = [(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in in_order]
    header, offsets = safetensors_header(entries, {})
    with create_in_blocks(draft, offsets[-1]) as append:
        append([memoryview(header)])
        for _, tensor in in_order:
            append([memory(on_host(tensor))])


def _write_state_dict(tensors: Mapping[str, Tensor], draft: Path) -> None:
    # Names of one weight share a tensor.
    row_major = {id(tensor): tensor.contiguous() for tensor in tensors.values()}
    named = {name: row_major[id(tensor)] for name, tensor in tensors.items()}
    with created(draft) as descriptor, open(descriptor, "wb", closefd=False) as file:
        torch.save(named, file)
