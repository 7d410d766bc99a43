"""Buffers that are ``None`` when a program is made, and must be so after each forward.

A state has the buffers that were there at first. One that a forward fills would stay in the
private shell: lost when the run is resumed, and seen by steps from quite another state.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from functrain.errors import ModelError

# The dict of buffers, the name in it, and the path.
Unfilled = tuple[dict[str, Tensor | None], str, str]


def unfilled(module: nn.Module) -> list[Unfilled]:
    """The persistent buffers of a module that are ``None``.

    Args:
        module: those that are not persistent are caches, which it may fill as it likes.
    """
    return [
        (owner._buffers, name, f"{path}.{name}" if path else name)
        for path, owner in module.named_modules()
        for name, buffer in owner._buffers.items()
        if buffer is None and name not in owner._non_persistent_buffers_set
    ]


def refuse_filled(places: list[Unfilled]) -> None:
    """Empty what a forward has filled, and tell.

    Args:
        places: from :func:`unfilled`.

    Raises:
        ModelError: a buffer was filled.
    """
    filled: list[Any] = [place for place in places if place[0][place[1]] is not None]
    for buffers, name, _ in filled:
        buffers[name] = None
    if filled:
        raise ModelError(
            f"the forward filled {[path for *_, path in filled][:8]}, None when the program was "
            "made: a buffer that changes must have a place in the state from the start. Register "
            "it with a tensor of its shape and dtype; or with persistent=False, if it is only a "
            "cache of what is computed anew"
        )
