"""Logits processors: pure functions that change logits before a token is drawn.

Each computes the same as the class of transformers that it names, including ties and bounds.
Logits are [..., vocabulary]; those of excluded tokens become ``-inf``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from functrain.errors import ConfigurationError
from functrain.errors.validators import integer, number

# The values that the options accept, here and in the sampler.
TEMPERATURE = number(minimum=0, finite=False)
TOP_K = integer(minimum=0)
TOP_P = MIN_P = number(minimum=0, maximum=1)
REPETITION_PENALTY = number(above=0, finite=False)
NO_REPEAT_NGRAM_SIZE = integer(minimum=0)


def repetition_penalty(logits: Tensor, tokens: Tensor, penalty: float) -> Tensor:
    """Make earlier tokens less likely, regardless of how often they occurred.

    Keskar et al., 2019; ``RepetitionPenaltyLogitsProcessor`` of transformers.

    Args:
        logits: [..., vocabulary].
        tokens: int64 tokens so far, [..., n].
        penalty: divides positive logits and multiplies negative ones; above 0.

    Returns:
        Logits of the same shape.

    Example:
        >>> repetition_penalty(torch.tensor([2.0, -2.0, 1.0]), torch.tensor([0, 0, 1]), 2.0)
        tensor([ 1., -4.,  1.])
    """
    REPETITION_PENALTY.check("repetition_penalty", penalty)
    less = torch.where(logits < 0, logits * penalty, logits / penalty)
    return torch.where(_marked(logits, tokens), less, logits)


def no_repeat_ngram(logits: Tensor, tokens: Tensor, size: int) -> Tensor:
    """Exclude tokens that would repeat an n-gram of ``size`` tokens.

    ``NoRepeatNGramLogitsProcessor`` of transformers.

    Args:
        logits: [..., vocabulary].
        tokens: int64 tokens so far, [..., n].
        size: tokens in an n-gram; 1 lets no token occur twice, 0 excludes nothing.

    Returns:
        Logits of the same shape.

    Example:
        >>> no_repeat_ngram(torch.zeros(3), torch.tensor([0, 1, 2, 0]), 2)
        tensor([0., -inf, 0.])
    """
    NO_REPEAT_NGRAM_SIZE.check("no_repeat_ngram_size", size)
    if not 0 < size <= tokens.shape[-1]:
        return logits
    ngrams = tokens.unfold(-1, size, 1)
    beginning = tokens[..., tokens.shape[-1] - size + 1 :]
    repeats = (ngrams[..., :-1] == beginning[..., None, :]).all(-1)
    # Other n-grams ban the index just beyond the vocabulary, which is no token.
    banned = torch.where(repeats, ngrams[..., -1], logits.shape[-1])
    return logits.masked_fill(_marked(logits, banned), -torch.inf)


def temperature(logits: Tensor, value: float) -> Tensor:
    """Flatten (above 1) or sharpen (below 1) the distribution.

    Ackley et al., 1985; ``TemperatureLogitsWarper`` of transformers.

    Args:
        logits: [..., vocabulary].
        value: divides the logits; above 0. Only :class:`~functrain.generation.Sampler` takes 0,
            for the most likely token.

    Returns:
        Logits of the same shape.

    Example:
        >>> temperature(torch.tensor([1.0, 3.0]), 2.0)
        tensor([0.5000, 1.5000])
    """
    TEMPERATURE.check("temperature", value)
    if value == 0:
        raise ConfigurationError("temperature 0 divides by zero; take logits.argmax(-1) instead")
    return logits / value


def top_k(logits: Tensor, k: int) -> Tensor:
    """Keep the ``k`` most likely tokens, and those tied with the last of them.

    Fan et al., 2018; ``TopKLogitsWarper`` of transformers.

    Args:
        logits: [..., vocabulary].
        k: number of tokens; 0 or more than the vocabulary has keeps all.

    Returns:
        Logits of the same shape.

    Example:
        >>> top_k(torch.tensor([1.0, 3.0, 2.0]), 2)
        tensor([-inf, 3., 2.])
    """
    TOP_K.check("top_k", k)
    if not 0 < k < logits.shape[-1]:
        return logits
    last = logits.topk(k).values[..., -1:]
    return logits.masked_fill(logits < last, -torch.inf)


def top_p(logits: Tensor, p: float) -> Tensor:
    """Keep the fewest of the most likely tokens whose probabilities add up to ``p``.

    Holtzman et al., 2020; ``TopPLogitsWarper`` of transformers. The least likely tokens are
    removed while they add up to at most 1 - p; the most likely one stays. p = 1 removes nothing.

    Args:
        logits: [..., vocabulary].
        p: from 0 to 1.

    Returns:
        Logits of the same shape.

    Example:
        >>> top_p(torch.tensor([0.5, 0.2, 0.3]).log(), 0.6).exp()
        tensor([0.5000, 0.0000, 0.3000])
    """
    TOP_P.check("top_p", p)
    if p == 1:
        return logits
    # In ascending order like transformers: small numbers are added first, and ties match.
    ordered, order = logits.sort(descending=False)
    removed = ordered.softmax(-1).cumsum(-1) <= 1 - p
    removed[..., -1] = False
    return logits.masked_fill(removed.scatter(-1, order, removed), -torch.inf)


def min_p(logits: Tensor, p: float) -> Tensor:
    """Keep tokens that are at least ``p`` times as likely as the most likely one.

    Nguyen et al., 2024; ``MinPLogitsWarper`` of transformers.

    Args:
        logits: [..., vocabulary].
        p: from 0 (keeps all) to 1 (keeps the most likely and its ties).

    Returns:
        Logits of the same shape.

    Example:
        >>> min_p(torch.tensor([0.5, 0.2, 0.3]).log(), 0.5).exp()
        tensor([0.5000, 0.0000, 0.3000])
    """
    MIN_P.check("min_p", p)
    probabilities = logits.softmax(-1)
    least = p * probabilities.amax(-1, keepdim=True)
    return logits.masked_fill(probabilities < least, -torch.inf)


def _marked(logits: Tensor, tokens: Tensor) -> Tensor:
    """Mark the logits of ``tokens``; some models read more tokens than they predict."""
    size = logits.shape[-1]
    shape = (*logits.shape[:-1], size + 1)
    marked = torch.zeros(shape, dtype=torch.bool, device=logits.device)
    return marked.scatter(-1, tokens.clamp(max=size), True)[..., :size]
