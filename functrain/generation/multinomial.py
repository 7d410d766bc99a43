"""Draw a token from logits, with given random numbers.

One number from 0 to 1 selects a token, by the inverse of the cumulative distribution. It is a
function of (seed, row, position), so a text does not depend on the other texts in its batch, and
an interrupted text can be continued without a difference.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from functrain.core.rng import derive
from functrain.errors import LogitsError


def uniforms(seed: int, rows: Sequence[int], position: int) -> Tensor:
    """Return the random numbers for the tokens at one position.

    Args:
        seed: seed of the random stream.
        rows: the numbers of the texts.
        position: number of earlier tokens, including the prompt.

    Returns:
        float64, [rows], from 0 to below 1.

    Example:
        >>> uniforms(0, [0, 1], 5)[1] == uniforms(0, [1], 5)[0]
        tensor(True)
    """
    drawn = [derive(seed, "generate", row, position) >> 10 for row in rows]  # 53 bits each
    return torch.tensor(drawn, dtype=torch.float64) / (1 << 53)


def draw(logits: Tensor, uniform: Tensor) -> Tensor:
    """Draw tokens with the probabilities of the softmax.

    Args:
        logits: [..., vocabulary].
        uniform: [...], from 0 to below 1, on any device.

    Returns:
        int64 tokens, [...]; never one with a logit of ``-inf``.

    Raises:
        LogitsError: a row is not a distribution; see :func:`check`.

    Example:
        >>> draw(torch.tensor([[0.5, 0.5], [0.5, 0.5]]).log(), torch.tensor([0.1, 0.7]))
        tensor([0, 1])
    """
    check(logits)
    probabilities = logits.double().softmax(-1)
    cumulative = probabilities.cumsum(-1)
    total = cumulative[..., -1:]
    aim = uniform.to(cumulative)[..., None] * total
    # Rounding may raise the product to the total, beyond the last token.
    aim = torch.minimum(aim, torch.nextafter(total, torch.zeros_like(total)))
    return ((cumulative > aim) & (probabilities > 0)).int().argmax(-1)


def check(logits: Tensor) -> None:
    """Check that every row is a distribution.

    Example:
        >>> check(torch.tensor([0.0, -torch.inf]))
    """
    largest = logits.amax(-1).reshape(-1)  # NaN if the row has one
    if torch.isfinite(largest).all():
        return
    row = int((~torch.isfinite(largest)).int().argmax())
    raise LogitsError(row, float(largest[row]))
