"""How a token is chosen, as one value."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import attrs
from attrs.validators import optional
from torch import Tensor

from functrain.generation import bounds, rules
from functrain.generation.drawing import check, draw

Rule = Callable[[Tensor], Tensor]


@attrs.frozen
class Sampler:
    """The rules of sampling, in the order of transformers, with its names.

    Attributes:
        temperature: 0 takes the most likely token, the first of equals.
        top_k: draw from so many only; 0 or ``None`` from all.
        top_p: draw from the most likely that have so much probability.
        min_p: draw from those at least so likely, relative to the most likely.
        repetition_penalty: above 1 makes tokens of the text so far less likely.
        no_repeat_ngram_size: no stretch of so many tokens twice; 0 or ``None`` allows it.

    Raises:
        ConfigurationError: a value is out of its bounds.

    Example:
        >>> import torch
        >>> logits, text = torch.tensor([[1.0, 3.0, 2.0]]), torch.tensor([[1]])
        >>> Sampler(temperature=0)(logits, text, torch.tensor([0.5]))
        tensor([1])
        >>> Sampler(top_k=2, repetition_penalty=2.0).processed(logits, text)
        tensor([[  -inf, 1.5000, 2.0000]])
    """

    temperature: float = attrs.field(default=1.0, validator=bounds.TEMPERATURE)
    top_k: int | None = attrs.field(default=None, validator=optional(bounds.TOP_K))
    top_p: float | None = attrs.field(default=None, validator=optional(bounds.TOP_P))
    min_p: float | None = attrs.field(default=None, validator=optional(bounds.MIN_P))
    repetition_penalty: float = attrs.field(default=1.0, validator=bounds.REPETITION_PENALTY)
    no_repeat_ngram_size: int | None = attrs.field(
        default=None, validator=optional(bounds.NO_REPEAT_NGRAM_SIZE)
    )

    def __call__(self, logits: Tensor, tokens: Tensor, uniform: Tensor) -> Tensor:
        """Choose the next token of each text.

        Args:
            logits: [batch, vocabulary].
            tokens: int64 texts so far, [batch, n].
            uniform: a random number from 0 to below 1 for each, [batch].

        Returns:
            int64 tokens, [batch].

        Raises:
            LogitsError: nothing can be drawn: NaN, ``+inf``, or ``-inf`` everywhere.
        """
        logits = self.processed(logits, tokens)
        if self.temperature > 0:
            return draw(logits, uniform)
        check(logits)
        return logits.argmax(-1)

    def processed(self, logits: Tensor, tokens: Tensor) -> Tensor:
        """Logits after every rule, in float32 at least; arguments as above."""
        logits = logits if logits.dtype.itemsize >= 4 else logits.float()
        for rule in self.rules(tokens):
            logits = rule(logits)
        return logits

    def rules(self, tokens: Tensor) -> Iterator[Rule]:
        """The rules that apply after a text, in their order.

        Args:
            tokens: int64 texts so far, [batch, n].

        Yields:
            Functions from logits to logits.
        """
        if self.repetition_penalty != 1:
            yield lambda x: rules.repetition_penalty(x, tokens, self.repetition_penalty)
        if self.no_repeat_ngram_size is not None:
            size = self.no_repeat_ngram_size
            yield lambda x: rules.no_repeat_ngram(x, tokens, size)
        if self.temperature > 0:  # else the most likely is taken, which no rule below changes
            yield from self._narrowing()

    def _narrowing(self) -> Iterator[Rule]:
        k, p, least = self.top_k, self.top_p, self.min_p
        yield lambda x: rules.temperature(x, self.temperature)
        if k is not None:
            yield lambda x: rules.top_k(x, k)
        if p is not None:
            yield lambda x: rules.top_p(x, p)
        if least is not None:
            yield lambda x: rules.min_p(x, least)
