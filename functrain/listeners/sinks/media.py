"""Images, figures and texts in the one form that destinations take."""

from __future__ import annotations

from typing import Any

import attrs
import torch
from torch import Tensor

from functrain.errors import UnsupportedError

_SHAPES = "[height, width], [height, width, 1, 3 or 4] or [1, 3 or 4, height, width]"


@attrs.frozen(eq=False)
class Medium:
    """A text or an image, and where it belongs.

    Attributes:
        value: a text, or an image as uint8 tensor of shape ``[height, width, channels]``.
    """

    step: int
    name: str
    value: str | Tensor


def as_medium(step: int, name: str, value: Any) -> Medium:
    """Return a text, an image or a figure as a plain value, which a checkpoint can hold.

    The value is a string; a figure of matplotlib; an image as tensor, array or PIL image, uint8 or
    floats from 0 to 1, with channels first or last.

    Example:
        >>> as_medium(1, "image", torch.ones(3, 8, 8)).value.shape
        torch.Size([8, 8, 3])
    """
    if isinstance(value, str):
        return Medium(step, name, value)
    if callable(getattr(value, "savefig", None)):
        value.canvas.draw()
        value = torch.tensor(bytearray(value.canvas.buffer_rgba()), dtype=torch.uint8).view(
            *value.canvas.get_width_height()[::-1], 4
        )
    elif callable(getattr(value, "convert", None)):  # an image of PIL
        rgb = value.convert("RGB")
        value = torch.tensor(bytearray(rgb.tobytes()), dtype=torch.uint8)
        value = value.view(rgb.height, rgb.width, 3)
    return Medium(step, name, _image(name, value))


def _image(name: str, value: Any) -> Tensor:
    try:
        image = torch.as_tensor(value).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise UnsupportedError(
            f"{name!r}: expected a string, an image or a figure of matplotlib, got a "
            f"{type(value).__name__}. Convert it, or log numbers as metrics"
        ) from error
    shape = list(image.shape)
    if image.ndim == 2:
        image = image.unsqueeze(2)
    elif image.ndim == 3 and image.shape[2] not in (1, 3, 4) and image.shape[0] in (1, 3, 4):
        image = image.permute(1, 2, 0)
    if image.ndim != 3 or image.shape[2] not in (1, 3, 4):
        raise UnsupportedError(
            f"{name!r}: expected an image of shape {_SHAPES}, got {shape}; "
            "torchvision.utils.make_grid makes one image of a batch"
        )
    if image.is_floating_point():
        low, high = image.min().item(), image.max().item()
        if not (low >= 0 and high <= 1):
            raise UnsupportedError(
                f"{name!r}: expected floats from 0 to 1, got {low:.4g} to {high:.4g}. Rescale "
                "them, or undo the normalization of the data"
            )
        image = (image * 255).round()
    elif image.dtype is torch.bool:
        image = image.to(torch.uint8) * 255
    elif image.dtype is not torch.uint8:
        raise UnsupportedError(
            f"{name!r}: expected uint8 or floats from 0 to 1, got {image.dtype}: convert it, "
            "image.to(torch.uint8)"
        )
    return image.to(torch.uint8).contiguous()
