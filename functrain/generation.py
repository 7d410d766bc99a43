"""Drawing tokens from logits, and text from a language model; pure, with an explicit stream."""

from __future__ import annotations

import torch
from torch import Tensor

from functrain.errors import ConfigurationError
from functrain.program import Program
from functrain.rng import derive
from functrain.state import TrainState


def filtered(logits: Tensor, top_k: int | None = None, top_p: float | None = None) -> Tensor:
    """Logits with unlikely tokens ruled out.

    Args:
        logits: [vocabulary].
        top_k: keep only so many of the largest; more than there are keeps all.
        top_p: keep the fewest of the largest whose probabilities add up to this (Holtzman et al.,
            2020); the largest always stays.

    Returns:
        Logits with ``-inf`` at the others.

    Example:
        >>> filtered(torch.tensor([1.0, 3.0, 2.0]), top_k=2)
        tensor([-inf, 3., 2.])
    """
    if top_k is not None and top_k < len(logits):
        kept = logits.topk(max(top_k, 1)).indices
        logits = torch.full_like(logits, -torch.inf).scatter(0, kept, logits[kept])
    if top_p is not None and top_p < 1:
        ordered, order = logits.sort(descending=True, stable=True)
        probabilities = ordered.softmax(0)
        before = probabilities.cumsum(0) - probabilities
        beyond = order[(before > top_p) & (torch.arange(len(order), device=order.device) > 0)]
        logits = logits.index_fill(0, beyond, -torch.inf)
    return logits


def penalised(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Logits with tokens that occurred made less likely, once each (Keskar et al., 2019).

    Args:
        logits: [vocabulary].
        seen: tokens so far, repeated or not.
        penalty: positive logits are divided by it and negative ones multiplied.

    Example:
        >>> penalised(torch.tensor([2.0, -2.0, 1.0]), torch.tensor([0, 0, 1]), 2.0)
        tensor([ 1., -4.,  1.])
    """
    which = torch.unique(seen)
    chosen = logits[which]
    return logits.index_put((which,), torch.where(chosen > 0, chosen / penalty, chosen * penalty))


def sample(
    logits: Tensor,
    generator: torch.Generator,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Tensor:
    """Draw one token.

    Args:
        logits: [vocabulary].
        generator: the random stream, on the device of the logits.
        temperature: 0 takes the most likely token.
        top_k: see :func:`filtered`.
        top_p: see :func:`filtered`.

    Returns:
        int64 scalar.
    """
    if temperature < 0:
        raise ConfigurationError(f"temperature must be at least 0, came {temperature}")
    if temperature == 0:
        return logits.argmax()
    chances = filtered(logits / temperature, top_k, top_p).softmax(0)
    return torch.multinomial(chances, 1, generator=generator)[0]


def generate(
    program: Program,
    state: TrainState,
    prompt: Tensor,
    length: int,
    *,
    weights: str = "params",
    window: int | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float = 1.0,
    stop: int | None = None,
    seed: int = 0,
) -> Tensor:
    """Let a language model go on with a prompt; neither the state nor any generator changes.

    Args:
        program: whose module maps tokens [1, n] to logits [1, n, vocabulary].
        state: holds the weights.
        prompt: int64 tokens, [n], at least one.
        length: tokens to add.
        weights: ``"params"`` or ``"ema"``.
        window: tokens the model sees at once; by default all.
        temperature: see :func:`sample`.
        top_k: see :func:`filtered`.
        top_p: see :func:`filtered`.
        repetition_penalty: see :func:`penalised`.
        stop: token that ends the text; it is the last one returned.
        seed: of the random stream.

    Returns:
        Prompt and what was added, int64, on the CPU.
    """
    if prompt.ndim != 1 or not len(prompt):
        raise ConfigurationError("the prompt must be one row of at least one token")
    generator = torch.Generator(state.device).manual_seed(derive(seed, "generate"))
    tokens = prompt.to(state.device)
    with program.evaluating(state, weights) as model:
        for _ in range(length):
            logits = model(tokens[None, -(window or len(tokens)) :])[0, -1].float()
            if repetition_penalty != 1.0:
                logits = penalised(logits, tokens, repetition_penalty)
            token = sample(logits, generator, temperature=temperature, top_k=top_k, top_p=top_p)
            tokens = torch.cat([tokens, token[None]])
            if stop is not None and token.item() == stop:
                break
    return tokens.cpu()
