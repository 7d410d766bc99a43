"""Rules that change logits before a token is drawn, each a pure function by itself.

Each is what the class of transformers that is named there computes, ties and bounds included.
Logits are [..., vocabulary]; what is ruled out becomes ``-inf``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from functrain.errors import ConfigurationError
from functrain.generation import bounds


def repetition_penalty(logits: Tensor, tokens: Tensor, penalty: float) -> Tensor:
    """Make tokens that occurred less likely, once each however often they did.

    Keskar et al., 2019; ``RepetitionPenaltyLogitsProcessor`` of transformers.

    Args:
        logits: [..., vocabulary].
        tokens: int64 tokens so far, [..., n].
        penalty: positive logits are divided by it and negative ones multiplied; above 0.

    Returns:
        Logits of the same shape.

    Example:
        >>> repetition_penalty(torch.tensor([2.0, -2.0, 1.0]), torch.tensor([0, 0, 1]), 2.0)
        tensor([ 1., -4.,  1.])
    """
    bounds.REPETITION_PENALTY.check(penalty)
    less = torch.where(logits < 0, logits * penalty, logits / penalty)
    return torch.where(_marked(logits, tokens), less, logits)


def no_repeat_ngram(logits: Tensor, tokens: Tensor, size: int) -> Tensor:
    """Rule out tokens that would repeat a stretch of ``size`` tokens.

    ``NoRepeatNGramLogitsProcessor`` of transformers.

    Args:
        logits: [..., vocabulary].
        tokens: int64 tokens so far, [..., n].
        size: tokens in a stretch; 1 lets no token occur twice, 0 allows everything.

    Returns:
        Logits of the same shape.

    Example:
        >>> no_repeat_ngram(torch.zeros(3), torch.tensor([0, 1, 2, 0]), 2)
        tensor([0., -inf, 0.])
    """
    bounds.NO_REPEAT_NGRAM_SIZE.check(size)
    if not 0 < size <= tokens.shape[-1]:
        return logits
    stretches = tokens.unfold(-1, size, 1)
    beginning = tokens[..., tokens.shape[-1] - size + 1 :]
    repeats = (stretches[..., :-1] == beginning[..., None, :]).all(-1)
    # What begins otherwise bans a token beyond the vocabulary, which is none.
    banned = torch.where(repeats, stretches[..., -1], logits.shape[-1])
    return logits.masked_fill(_marked(logits, banned), -torch.inf)


def temperature(logits: Tensor, value: float) -> Tensor:
    """Flatten (above 1) or sharpen (below 1) the distribution.

    Ackley et al., 1985; ``TemperatureLogitsWarper`` of transformers.

    Args:
        logits: [..., vocabulary].
        value: what they are divided by; above 0. To take the most likely token needs no division,
            so 0 is an option of :class:`~functrain.generation.Sampler` only.

    Returns:
        Logits of the same shape.

    Example:
        >>> temperature(torch.tensor([1.0, 3.0]), 2.0)
        tensor([0.5000, 1.5000])
    """
    bounds.TEMPERATURE.check(value)
    if value == 0:
        raise ConfigurationError("temperature 0 divides by zero; take logits.argmax(-1) instead")
    return logits / value


def top_k(logits: Tensor, k: int) -> Tensor:
    """Keep the ``k`` most likely tokens, and those that equal the last of them.

    Fan et al., 2018; ``TopKLogitsWarper`` of transformers.

    Args:
        logits: [..., vocabulary].
        k: how many; 0, and more than there are, keep all.

    Returns:
        Logits of the same shape.

    Example:
        >>> top_k(torch.tensor([1.0, 3.0, 2.0]), 2)
        tensor([-inf, 3., 2.])
    """
    bounds.TOP_K.check(k)
    if not 0 < k < logits.shape[-1]:
        return logits
    last = logits.topk(k).values[..., -1:]
    return logits.masked_fill(logits < last, -torch.inf)


def top_p(logits: Tensor, p: float) -> Tensor:
    """Keep the fewest of the most likely tokens whose probabilities add up to ``p``.

    Holtzman et al., 2020; ``TopPLogitsWarper`` of transformers. The least likely go while they add
    up to no more than 1 - p; the most likely stays. With p = 1 nothing goes.

    Args:
        logits: [..., vocabulary].
        p: from 0 to 1.

    Returns:
        Logits of the same shape.

    Example:
        >>> top_p(torch.tensor([0.5, 0.2, 0.3]).log(), 0.6).exp()
        tensor([0.5000, 0.0000, 0.3000])
    """
    bounds.TOP_P.check(p)
    if p == 1:
        return logits
    # From the least likely up, as there: sums of small numbers first, and ties fall alike.
    ordered, order = logits.sort(descending=False)
    gone = ordered.softmax(-1).cumsum(-1) <= 1 - p
    gone[..., -1] = False
    return logits.masked_fill(gone.scatter(-1, order, gone), -torch.inf)


def min_p(logits: Tensor, p: float) -> Tensor:
    """Keep tokens that are at least ``p`` times as likely as the most likely one.

    Nguyen et al., 2024; ``MinPLogitsWarper`` of transformers.

    Args:
        logits: [..., vocabulary].
        p: from 0 (all) to 1 (the most likely and its equals).

    Returns:
        Logits of the same shape.

    Example:
        >>> min_p(torch.tensor([0.5, 0.2, 0.3]).log(), 0.5).exp()
        tensor([0.5000, 0.0000, 0.3000])
    """
    bounds.MIN_P.check(p)
    probabilities = logits.softmax(-1)
    least = p * probabilities.amax(-1, keepdim=True)
    return logits.masked_fill(probabilities < least, -torch.inf)


def _marked(logits: Tensor, tokens: Tensor) -> Tensor:
    """Which logits are those of ``tokens``; some models read more tokens than they predict."""
    size = logits.shape[-1]
    shape = (*logits.shape[:-1], size + 1)
    marked = torch.zeros(shape, dtype=torch.bool, device=logits.device)
    return marked.scatter(-1, tokens.clamp(max=size), True)[..., :size]
