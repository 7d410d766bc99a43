"""From logits to a token, with the random number given.

One number from 0 to 1 decides a token, by the inverse of the cumulative distribution. It is a
function of (seed, row, position), so a text does not depend on the texts that are drawn beside it,
and a text that is cut goes on as if it had not been.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from functrain.core.rng import derive
from functrain.errors import LogitsError


def uniforms(seed: int, rows: Sequence[int], position: int) -> Tensor:
    """The random numbers that decide the tokens at one position.

    Args:
        seed: root of the random stream.
        rows: numbers of the texts.
        position: tokens before this one, the prompt's included.

    Returns:
        float64, [rows], from 0 to below 1.

    Example:
        >>> uniforms(0, [0, 1], 5)[1] == uniforms(0, [1], 5)[0]
        tensor(True)
    """
    drawn = [derive(seed, "generate", row, position) >> 10 for row in rows]  # 53 bits each
    return torch.tensor(drawn, dtype=torch.float64) / (1 << 53)


def draw(logits: Tensor, uniform: Tensor) -> Tensor:
    """Tokens with the probabilities of the softmax.

    Args:
        logits: [..., vocabulary].
        uniform: [...], from 0 to below 1, on any device.

    Returns:
        int64 tokens, [...]; never one whose logit is ``-inf``.

    Raises:
        LogitsError: a row has no distribution; see :func:`check`.

    Example:
        >>> draw(torch.tensor([[0.5, 0.5], [0.5, 0.5]]).log(), torch.tensor([0.1, 0.7]))
        tensor([0, 1])
    """
    check(logits)
    probabilities = logits.double().softmax(-1)
    cumulative = probabilities.cumsum(-1)
    total = cumulative[..., -1:]
    aim = uniform.to(cumulative)[..., None] * total
    # The product may be rounded up to the total, beyond which there is no token.
    aim = torch.minimum(aim, torch.nextafter(total, torch.zeros_like(total)))
    return ((cumulative > aim) & (probabilities > 0)).int().argmax(-1)


def check(logits: Tensor) -> None:
    """Make sure that every row has a distribution to draw from.

    Args:
        logits: [..., vocabulary].

    Raises:
        LogitsError: a row has NaN or ``+inf``, or is ``-inf`` everywhere.

    Example:
        >>> check(torch.tensor([0.0, -torch.inf]))
    """
    largest = logits.amax(-1).reshape(-1)  # NaN where there is one
    if torch.isfinite(largest).all():
        return
    row = int((~torch.isfinite(largest)).int().argmax())
    raise LogitsError(row, float(largest[row]))
